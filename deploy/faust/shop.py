"""A Faust app with a query in the middle: an agent, SQL over event-time windows, an agent.

faust -A shop worker          # here in this folder, with a Kafka at ${KAFKA:-localhost:9092}
curl localhost:6066/streamproc/
"""

import os
from datetime import datetime

import faust

import streamproc.faust

app = faust.App("shop", broker=f"kafka://{os.environ.get('KAFKA', 'localhost:9092')}")


class Request(faust.Record):
    """As the web servers write it."""

    id: str
    user: str
    url: str
    at: datetime


class Visit(faust.Record):
    id: str
    user: str
    page: str
    at: datetime


class Popular(faust.Record):
    """What the query finds: `visitors` of a page in the minute from `minute` on."""

    minute: datetime
    page: str
    visits: int
    visitors: int


requests = app.topic("requests", value_type=Request)
visits = app.topic("visits", value_type=Visit)
popular = app.topic("popular", value_type=Popular)
notices = app.topic("notices", value_type=str)


@app.agent(requests)
async def clean(stream: faust.StreamT[Request]) -> None:
    """Before the query: anything that Python does best."""
    async for request in stream:
        page = request.url.partition("?")[0]
        visit = Visit(id=request.id, user=request.user, page=page, at=request.at)
        await (await visits.send(key=request.user, value=visit))  # until Kafka has it: Faust commits the request without looking


@app.agent(popular)
async def tell(stream: faust.StreamT[Popular]) -> None:
    """After it: goes on with the windows."""
    async for found in stream:
        await (await notices.send(key=found.page, value=f"{found.minute} {found.page} {found.visits} {found.visitors}"))


streamproc.faust.attach(app, os.path.join(os.path.dirname(__file__), "popular.yaml"))
