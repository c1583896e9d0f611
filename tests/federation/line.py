"""The line on which a server is called by others: bytes are passed on as they come, until a story cuts or blocks it.

A server's name holds the line's port, not its own, so that a story can part servers that both go on serving their users.
"""

import asyncio
import contextlib

CHUNK = 64 * 1024


class Line:
    """Passes connections to its own port on to the server's. It is one of:

    - open: what comes is passed on,
    - cut: connections are closed, and new ones closed at once,
    - silent: connections are accepted and kept, and nothing is passed on until the line is open again.
    """

    def __init__(self, to_port):
        self._to_port = to_port
        self._open = asyncio.Event()
        self._open.set()
        self._cut = False
        self._calls = set()
        self._server = None

    async def start(self):
        self._server = await asyncio.start_server(self._call, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    def cut(self):
        self._cut = True
        for call in list(self._calls):
            call.cancel()

    def silence(self):
        self._open.clear()

    def mend(self):
        self._cut = False
        self._open.set()

    async def stop(self):
        self.cut()
        self._server.close()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _call(self, reader, writer):
        call = asyncio.current_task()
        self._calls.add(call)
        try:
            if not self._cut:
                await self._open.wait()
                await self._connect(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the server is down, one side hung up, or the line was cut: the caller sees a closed connection
        finally:
            self._calls.discard(call)
            writer.transport.abort()

    async def _connect(self, reader, writer):
        to_server = await asyncio.open_connection("127.0.0.1", self._to_port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass_on(reader, to_server[1]))
                both.create_task(self._pass_on(to_server[0], writer))
        except* OSError:
            pass
        finally:
            to_server[1].transport.abort()

    async def _pass_on(self, reader, writer):
        while data := await reader.read(CHUNK):
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
