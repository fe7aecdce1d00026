"""mcache from Python: shares entries with the Rust client. Standard library only; docs/protocol.md says what it does and why."""
import json, socket, struct

class Connection:
    """RESP2 over one socket: a command out, a reply in."""
    def __init__(self, address):
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address)
        self.reader = self.socket.makefile("rb")
    def call(self, *args):
        args = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        self.socket.sendall(b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(arg), arg) for arg in args))
        return self.reply()
    def reply(self):
        line = self.reader.readline()
        kind, rest = line[:1], line[1:-2]
        if kind in b"-":  # also no line at all: the connection is closed
            raise (RuntimeError if line else ConnectionError)(rest.decode())
        if kind == b"+":
            return rest
        if kind == b":" or int(rest) < 0:
            return int(rest) if kind == b":" else None
        return self.reader.read(int(rest) + 2)[:-2] if kind == b"$" else [self.reply() for _ in range(int(rest))]

def unpack_lz4(packed, size):
    """One LZ4 block: runs of literals, each followed by a reference to what was written before."""
    out, at = bytearray(), 0
    def length(count):
        nonlocal at
        more = 255 if count == 15 else 0
        while more == 255:
            more, at = packed[at], at + 1
            count += more
        return count
    while at < len(packed):
        token, at = packed[at], at + 1
        literals = length(token >> 4)
        out, at = out + packed[at : at + literals], at + literals
        if at < len(packed):
            back, at = struct.unpack_from("<H", packed, at)[0], at + 2
            for _ in range(length(token & 15) + 4):
                out.append(out[-back])
    if len(out) != size:
        raise ValueError("damaged")
    return bytes(out)

def seal(payload, codec=1, schema=0):
    return struct.pack("<BBBH", 0xC1, 0, codec, schema) + payload

def open_sealed(sealed, codec=1, schema=0):
    """("value", bytes), ("absent", None), or ("unreadable", None), which is a miss."""
    if len(sealed) < 5 or sealed[0] != 0xC1 or sealed[1] & ~3 or struct.unpack("<BH", sealed[2:5]) != (codec, schema):
        return "unreadable", None
    if sealed[1] & 2:
        return "absent", None
    try:
        return "value", unpack_lz4(sealed[9:], *struct.unpack("<I", sealed[5:9])) if sealed[1] & 1 else sealed[5:]
    except (ValueError, IndexError, struct.error):
        return "unreadable", None

class Cache:
    """Keys and tags are text, values are JSON. One thread at a time."""
    def __init__(self, address, namespace="mc", schema=0):
        self.address, self.schema, self.shared, self.waiting = address, schema, Connection(address), None
        self.prefix = namespace.replace("%", "%25").replace(":", "%3A") + ":"
    def key(self, key):
        return self.prefix + ("" if self.schema == 0 else f"#1.{self.schema}:") + ("#" if key[:1] == "#" else "") + key
    def tag(self, tag):
        return self.prefix + ("*" if tag[:1] == "*" else "") + tag
    def value(self, sealed):
        payload = open_sealed(sealed, schema=self.schema)[1] if sealed is not None else None
        return None if payload is None else json.loads(payload)
    def get(self, key):
        return self.value(self.shared.call("MCACHE.GET", self.key(key)))

    def set(self, key, value, ttl=3600, tags=(), token=None):
        sealed, began = seal(json.dumps(value).encode(), schema=self.schema), ["TOKEN", token] if token else []
        tags = [*map(self.tag, tags), self.prefix + "*"]  # the last one clears the namespace
        return self.shared.call("MCACHE.SET", self.key(key), ttl, sealed, *began, "TAGS", *tags) is not None

    def get_or_load(self, key, load, ttl=3600, tags=()):
        """Of all callers in all processes that miss the key one loads; the others wait in the server."""
        self.waiting = self.waiting or Connection(self.address)  # a call that waits holds up those behind it
        state, sealed, token = self.waiting.call("MCACHE.FETCH", self.key(key), "LEASE", 30000, "WAIT", 60000)
        found = None if token else self.value(sealed)
        if found is not None:
            return found
        try:
            loaded = load()
        except BaseException:
            token and self.shared.call("MCACHE.RELEASE", self.key(key), token)
            raise
        token and self.set(key, loaded, ttl, tags, token)  # refused if a tag was invalidated meanwhile
        return loaded
    def invalidate(self, *tags):
        return self.shared.call("MCACHE.INVALIDATE", "TAGS", *map(self.tag, tags))
