import asyncio, time, pytest, aiohttp
from tests.reader.running import *
from tests.reader.conftest import *
from broker.document import encode_document

async def test_overflow(running, store):
    await store.holds(sent(2**62))
    a = await running.ask("/readings/buckets", series(every="999999999999d", from_=TS, to=TS+10))
    print(a.status, a.body)
    a = await running.ask("/readings/buckets", series())
    print(a.status, a.body)

@pytest.mark.parametrize("raw", [b"\xff", b"%ff", b"\xed\xa0\x80", b"%ED%A0%80", b"%00"])
async def test_surrogate(running, store, raw):
    for path in (b"/readings?sensorType=t&device=", b"/series?device=", b"/series?cursor=",b"/readings/latest?sensorType="):
        r, w = await asyncio.open_connection("127.0.0.1", running.port)
        w.write(b"GET "+path+raw+b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "+token_of().encode()+b"\r\n\r\n")
        print(raw, path, (await r.read())[:400])
        w.close()

async def test_timeout(broker, mongodb_database, store):
    docs = [encode_document(OWNER, DEVICE, sent(float(i), TS+i)) for i in range(200_000)]
    await store.write(docs)
    async with reader(broker, mongodb_database, query_timeout_seconds=0.06) as running:
        for fmt in ("ndjson","csv"):
            t=time.time()
            try:
                a = await running.readings(format=fmt)
                print(fmt, a.status, a.body.count(b"\n"), time.time()-t)
            except aiohttp.ClientError as e:
                print(fmt, repr(e), time.time()-t)
