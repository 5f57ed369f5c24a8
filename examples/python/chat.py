#!/usr/bin/env python3
"""A chatbox client: type a line, read the answer. Reads from a pipe as well: echo "Hello" | chat.py
With --join and the token of an admin: take a session over from the AI, talk to its user, and hand back at the end of
the input.

Needs Python 3.9 or newer and `pip install websockets` (13 or newer).

What a client of docs/protocol.md has to do is all here: keep the log by its rule (`Log`), send a message again under
the same `client_msg_id` until it is acknowledged (`Chat.unacknowledged`), and open the session again where the last
connection left off.
"""
import argparse
import asyncio
import json
import os
import random
import sys
import threading
import uuid
from collections import deque

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

# Close codes after which a client must not reconnect by itself: the token, another connection, an admin.
FINAL_CODES = {4001, 4002, 4003}
LONGEST_WAIT_SECONDS = 15


class Log:
    """The entries of one session by `seq`, kept by the rule of protocol.md, section 5."""

    def __init__(self):
        self.clear()

    def clear(self):
        self.epoch = ""
        self.entries = {}

    def final_up_to(self):
        """The highest `seq` up to which every entry is no longer streaming: where to resume."""
        seq = 0
        while self.entries.get(seq + 1, {}).get("state", "streaming") != "streaming":
            seq += 1
        return seq

    def take_entry(self, entry):
        def version(e):
            return e["rev"], e.get("attempt", 0), e.get("next_index", 0)

        known = self.entries.get(entry["seq"])
        if known is None or version(entry) > version(known):
            self.entries[entry["seq"]] = entry

    def take_delta(self, delta):
        """False: something is missing, and the session has to be opened again."""
        entry = self.entries.get(delta["seq"])
        if entry is None:
            return False
        due = entry.get("attempt", 0), entry.get("next_index", 0)
        came = delta["attempt"], delta["index"]
        if entry["state"] != "streaming" or came < due:
            return True
        if came > due:
            return False
        entry["content"] += delta["delta"]
        entry["next_index"] = delta["index"] + delta.get("count", 1)
        return True


class Screen:
    """Prints what others say, answers as they grow."""

    def __init__(self, own_role):
        self.own_role = own_role
        self.printed = {}  # by seq
        self.done = set()

    def show(self, entry):
        seq, role = entry["seq"], entry["sender"]["role"]
        if role == self.own_role or seq in self.done:
            return
        text = entry["content"] if entry["kind"] == "message" else f"[{entry['event']}]"
        if self.own_role == "admin":
            text = f"{role}: {text}"
        printed = self.printed.get(seq, "")
        if not text.startswith(printed):
            print("\n[the answer begins again]")
            printed = ""
        print(text[len(printed):], end="", flush=True)
        self.printed[seq] = text
        if entry["state"] != "streaming":
            print(f"\n[failed: {entry['error']['code']}]" if entry["state"] == "failed" else "")
            self.done.add(seq)


class Chat:
    def __init__(self, options):
        self.options = options
        self.role = "admin" if options.join else "user"
        self.log = Log()
        self.screen = Screen(self.role)
        self.unacknowledged = deque()  # (client_msg_id, text); the first is on its way
        self.asked = set()  # seqs of our messages
        self.assisted = False  # while a human assists, the AI does not answer
        self.input_ended = False
        self.left = False  # the admin has handed back to the AI
        self.socket = None
        self.ready = False
        self.failed = False

    def finished(self):
        """The input has ended, and everything that was said is acknowledged and answered; for an admin: handed back."""
        if self.role == "admin":
            return self.left
        answered = {e.get("reply_to_seq") for e in self.log.entries.values() if e["state"] != "streaming"}
        return self.input_ended and not self.unacknowledged and (self.assisted or self.asked <= answered)

    async def run(self):
        wait = 0.5
        while not self.finished():
            try:
                headers = {"Authorization": f"Bearer {self.options.token}"}
                async with connect(self.options.url, additional_headers=headers) as self.socket:
                    wait = 0.5
                    await self.converse()
                    return
            except InvalidStatus as error:
                if error.response.status_code < 500 and error.response.status_code != 429:
                    sys.exit(f"refused: {error.response.status_code} {error.response.body.decode()}")
                reason = f"the server answers {error.response.status_code}"
            except ConnectionClosed as error:
                code = error.rcvd.code if error.rcvd else 1006
                if code in FINAL_CODES:
                    sys.exit(f"closed by the server: {code}")
                reason = f"connection lost ({code})"
            except OSError as error:
                reason = str(error)
            finally:
                self.socket, self.ready = None, False
            if self.finished():
                return
            print(f"[{reason}; connecting again]", file=sys.stderr)
            await asyncio.sleep(wait * random.uniform(0.5, 1))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    async def converse(self):
        while not self.finished():
            frame = json.loads(await self.socket.recv())
            handler = getattr(self, "on_" + frame["type"], None)  # unknown types are ignored
            if handler:
                await handler(frame)

    async def send(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, "session_id": self.options.session, **fields}))

    async def open(self):
        self.ready = False
        if self.role == "admin":
            await self.send("admin_join")  # the reply and the replay are those of session_open
            return
        resume = {"after_seq": self.log.final_up_to()}
        if self.log.epoch:
            resume["epoch"] = self.log.epoch
        await self.send("session_open", create=True, **resume)

    async def send_first(self):
        """One message at a time: the next one goes when this one is acknowledged. After the last, an admin leaves."""
        if self.ready and self.unacknowledged:
            client_msg_id, text = self.unacknowledged[0]
            await self.send(f"{self.role}_message", id=client_msg_id, client_msg_id=client_msg_id, content=text)
        elif self.ready and self.input_ended and self.role == "admin":
            await self.send("admin_leave", id="leave")

    async def say(self, text):
        self.unacknowledged.append((str(uuid.uuid4()), text))
        if len(self.unacknowledged) == 1:
            await self.send_first()

    async def on_welcome(self, frame):
        await self.open()

    async def on_session(self, frame):
        if frame["session"].get("reset"):
            self.log.clear()
            self.screen = Screen(self.role)
            self.asked.clear()
        self.log.epoch = frame["session"]["epoch"]
        self.assisted = "assisting_admin" in frame["session"]

    async def on_session_ready(self, frame):
        self.ready = True
        await self.send_first()

    async def on_entry(self, frame):
        self.log.take_entry(frame["entry"])
        self.screen.show(self.log.entries[frame["entry"]["seq"]])

    async def on_ai_delta(self, frame):
        if self.log.take_delta(frame):
            self.screen.show(self.log.entries[frame["seq"]])
        else:
            await self.open()

    async def on_ack(self, frame):
        self.left = self.left or frame.get("reply_to") == "leave"
        if self.unacknowledged and self.unacknowledged[0][0] == frame.get("client_msg_id"):
            self.unacknowledged.popleft()
            self.asked.add(frame["seq"])
            await self.send_first()

    async def on_error(self, frame):
        if frame.get("retryable"):
            await asyncio.sleep(frame.get("retry_after_ms", 1000) / 1000)
            await (self.send_first() if self.ready else self.open())
            return
        print(f"[{frame['code']}: {frame['message']}]", file=sys.stderr)
        self.failed = True
        self.left = self.left or frame.get("reply_to") == "leave"
        if not self.ready:
            sys.exit(1)
        if self.unacknowledged and self.unacknowledged[0][0] == frame.get("reply_to"):
            self.unacknowledged.popleft()
            await self.send_first()

    async def on_notice(self, frame):
        print(f"[{frame['message']}]", file=sys.stderr)


async def main(options):
    chat = Chat(options)
    loop = asyncio.get_running_loop()
    lines = asyncio.Queue()

    def read():
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, None)

    async def speak():
        while (line := await lines.get()) is not None:
            try:
                if line:
                    await chat.say(line)
            except ConnectionClosed:
                pass  # it is sent on the next connection
        chat.input_ended = True
        if chat.socket and chat.finished():
            await chat.socket.close()
        elif chat.socket and options.join and not chat.unacknowledged:
            try:
                await chat.send_first()
            except ConnectionClosed:
                pass  # the admin leaves on the next connection

    threading.Thread(target=read, daemon=True).start()
    speaking = asyncio.create_task(speak())
    await chat.run()
    speaking.cancel()
    return 1 if chat.failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="ws://127.0.0.1:8080/chat/ws", help="the gateway [default: %(default)s]")
    parser.add_argument("--token", default=os.environ.get("CHATBOX_TOKEN"), help="[default: $CHATBOX_TOKEN]")
    parser.add_argument("--session", default=str(uuid.uuid4()), help="go on with this session [default: a new one]")
    parser.add_argument("--join", action="store_true", help="take the session over; needs the token of an admin")
    arguments = parser.parse_args()
    if not arguments.token:
        parser.error("no token: use --token or CHATBOX_TOKEN")
    try:
        sys.exit(asyncio.run(main(arguments)))
    except KeyboardInterrupt:
        sys.exit(130)
