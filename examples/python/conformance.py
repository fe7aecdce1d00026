"""Runs client/vectors/*.json against this client and a server: conformance.py VECTORS ADDRESS, a port or a unix socket."""

import json, os, pathlib, sys

from mcache import Cache, open_sealed, seal


def names(cases):
    for case in cases["keys"]:
        if case["codec"] == 1:  # this client speaks JSON only
            cache = Cache(ADDRESS, case["namespace"], case["schema"])
            assert cache.key(case["key"]) == case["full"], case
    for case in cases["tags"]:
        assert Cache(ADDRESS, case["namespace"]).tag(case["tag"]) == case["full"], case
    for case in cases["everything"]:
        assert Cache(ADDRESS, case["namespace"]).prefix + "*" == case["full"], case


def envelope(cases):
    for case in cases["cases"]:
        sealed, payload = bytes.fromhex(case["sealed"]), bytes.fromhex(case.get("payload", ""))
        outcome, opened = open_sealed(sealed, case["codec"], case["schema"])
        assert outcome == case["outcome"], case["name"]
        assert outcome != "value" or opened == payload, case["name"]
        assert not case.get("seals") or seal(payload, case["codec"], case["schema"]) == sealed, case["name"]


def scenarios(cases):
    for number, case in enumerate(cases["cases"]):
        cache, tokens = Cache(ADDRESS, f"py-{os.getpid()}-{number}"), {}
        for step in case["steps"]:
            got = run(cache, step, tokens)
            assert got == step.get("expect", got), (case["name"], step, got)


def run(cache, step, tokens):
    call, op = cache.shared.call, step["op"]
    key = cache.key(step.get("key", ""))
    if op == "store":
        words = ["SWR", step["swr_ms"] // 1000] if "swr_ms" in step else []
        words += ["TOKEN", tokens[step["token"]]] if "token" in step else []
        words += ["MANUAL"] if step.get("manual") else []
        words += ["TAGS", *map(cache.tag, step["tags"])]
        return call("MCACHE.SET", key, step["ttl_ms"] // 1000, step["value"], *words) is not None
    if op == "get":
        value = call("MCACHE.GET", key)
        return None if value is None else value.decode()
    if op == "invalidate":
        mode = {"hard": [], "auto": ["AUTO"], "soft": ["SOFT"]}[step["mode"]]
        return call("MCACHE.INVALIDATE", *mode, "TAGS", *map(cache.tag, step["tags"]))
    if op == "token":
        tokens[step["as"]] = call("MCACHE.TOKEN", key)
        return None
    if op == "fetch":
        state, value, token = call("MCACHE.FETCH", key)
        assert state.decode() == step["state"] and ("as" in step) == (token is not None), (step, state)
        assert (value or b"").decode() == step.get("value", ""), (step, value)
        tokens[step.get("as")] = token
        return None
    if op == "release":
        return call("MCACHE.RELEASE", key, tokens[step["token"]]) == 1
    if op == "clear":
        return call("UNLINK", key) == 1
    raise ValueError(f"unknown step {op}")


VECTORS = pathlib.Path(sys.argv[1])
ADDRESS = sys.argv[2] if "/" in sys.argv[2] else ("127.0.0.1", int(sys.argv[2]))
for name, check in [("names", names), ("envelope", envelope), ("scenarios", scenarios)]:
    check(json.loads((VECTORS / f"{name}.json").read_text()))
    print(f"{name}: passed")
