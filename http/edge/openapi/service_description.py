"""The calls that need no key, as data, like description.py: how the gateway is, and what describes it."""

from __future__ import annotations

from edge.openapi.description import TEXT, Description, parameter
from edge.openapi.payment_schemas import Home, Liveness, ProblemType, ProblemTypeList, Readiness
from engine.problem import CATALOGUE

_CODE = parameter("code", "path", "The `code` of a problem.", {**TEXT, "enum": [*CATALOGUE]}, required=True)
_VERBOSE = parameter("verbose", "query", "Every check and not only those that fail.", dict(TEXT))

SERVICE_CALLS: tuple[Description, ...] = (
    Description(
        path="/",
        method="get",
        name="getHome",
        summary="Where the descriptions are",
        answers={200: Home},
        scope="open",
        tag="service",
    ),
    Description(
        path="/livez",
        method="get",
        name="isAlive",
        summary="Whether the process lives",
        answers={200: Liveness},
        scope="open",
        tag="service",
    ),
    Description(
        path="/readyz",
        method="get",
        name="isReady",
        summary="Whether the process can accept payments now",
        parameters=(_VERBOSE,),
        answers={200: Readiness, 503: Readiness},
        scope="open",
        tag="service",
    ),
    Description(
        path="/metrics",
        method="get",
        name="getMetrics",
        summary="Prometheus metrics",
        answers={200: None},
        scope="open",
        tag="service",
    ),
    Description(
        path="/problems",
        method="get",
        name="listProblemTypes",
        summary="Every kind of problem",
        answers={200: ProblemTypeList},
        scope="open",
        tag="service",
    ),
    Description(
        path="/problems/{code}",
        method="get",
        name="getProblemType",
        summary="One kind of problem",
        parameters=(_CODE,),
        answers={200: ProblemType},
        codes=("not_found",),
        scope="open",
        tag="service",
    ),
)
