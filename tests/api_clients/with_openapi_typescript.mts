// A payment with openapi-fetch, checked against the types that openapi-typescript made: authorized, captured, listed,
// and one that is refused.
import createClient from "openapi-fetch";
import type { components, paths } from "./gateway.js";

declare const process: { argv: string[] };
declare const crypto: { randomUUID(): string };
declare const console: { log(text: string): void };

const [edge, order, card] = process.argv.slice(2) as [string, string, string];
const client = createClient<paths>({ baseUrl: edge, headers: { "X-API-Key": "sk_local_merchant" } });

const body = (order_id: string): components["schemas"]["PaymentBody"] => ({
  amount: 5000,
  currency: "USD",
  order_id,
  customer_id: "c",
  payment_method: { type: "card", number: card, cvv: "123", expiry_month: 12, expiry_year: 2030 },
});
const asked = () => ({ "Idempotency-Key": crypto.randomUUID(), Prefer: "wait=30" });

const made = await client.POST("/v1/payments", { params: { header: asked() }, body: body(order) });
if (made.data === undefined) throw new Error(made.error.detail);
const captured = await client.POST("/v1/payments/{payment}/capture", {
  params: { path: { payment: made.data.id }, header: asked() },
});
const listed = await client.GET("/v1/payments", { params: { query: { order_id: order } } });
const refused = await client.POST("/v1/payments", { params: { header: asked() }, body: body("") });
console.log(
  JSON.stringify({
    payment: made.data.id,
    status: made.data.status,
    amount: made.data.amount,
    captured: captured.data?.status,
    listed: listed.data?.data.map((payment) => payment.id),
    problem: refused.error?.code,
    pointers: refused.error?.errors?.map((error) => error.pointer),
  }),
);
