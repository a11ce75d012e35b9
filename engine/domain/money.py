"""Money: integer minor units and a currency.

No float ever touches an amount. The list of currencies is ISO 4217's, without what nobody pays with: funds, units of
account, metals. Which of them a bank takes is the connector's business (ports.Capabilities). A currency that ISO
withdraws leaves the list, and no new payment is made in it; those that were made before are read, captured, voided and
refunded as ever, since only a new payment is asked whether its currency is here.
"""

from __future__ import annotations

from datetime import date

from msgspec import Struct

AMOUNT_MAX = 10**12  # API.md; far below 2**53, so that JSON readers that use doubles stay exact

ISO_4217_PUBLISHED = date(2026, 1, 1)  # the edition of List One below: BGN is out; XCG came for ANG, VED beside VES

_CODES_BY_DECIMALS = {
    0: """
    BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF
    """,
    2: """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC
    CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR
    JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD
    NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN
    SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG
    """,
    3: """
    BHD IQD JOD KWD LYD OMR TND
    """,
}
DECIMALS = {code: decimals for decimals, codes in _CODES_BY_DECIMALS.items() for code in codes.split()}
"""How many decimals the minor unit of a currency has: 5000 is 50.00 USD, 5000 JPY and 5.000 KWD."""
CURRENCIES = frozenset(DECIMALS)


class Money(Struct, frozen=True, kw_only=True):
    """An amount in minor units of an ISO 4217 currency (5000, "USD" is fifty dollars)."""

    amount: int
    currency: str
