"""What one writes first: FastAPI, redis-py's asynchronous client, one GET a key."""

import os

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from redis.asyncio import Redis


class Score(BaseModel):
    key: str
    score: float


app = FastAPI()
redis = Redis.from_url(os.environ["REDIS_URL"])


@app.get("/scores/{key}")
async def score(key: str) -> Score:
    value = await redis.get(key)
    if value is None:
        raise HTTPException(404, f"no score of {key}")
    return Score(key=key, score=float(value))
