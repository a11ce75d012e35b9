"""Measuring: how many payments a second, at what latency and cost, beside a pipeline with nothing in it.

Reading order: gateway (penstock bench), run (one measured run), load and generator (the client), report, bare and
bare_pipeline, webhooks and webhook_run, http_baseline, usage.

Of ops it imports stack and the root.
"""
