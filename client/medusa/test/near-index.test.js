"use strict"
/** The near cache's decisions, without a server: the histories of docs/near.md that an obvious version gets wrong. */
const { test } = require("node:test")
const assert = require("node:assert")
const { Near, Last } = require("../src/near/index")
const { HashKey } = require("../src/near/digest")
const { readAnswer, readEvents, readNear, cellOf } = require("../src/near/replies")
const { further, readUptime, ERROR_MS } = require("../src/near/clock")
const { seededRandom } = require("./support/random")

const KEY = Buffer.from(Array.from({ length: 16 }, (_, n) => n))
const BITS = 20
const LEASE_MS = 1_000
const VALUE = Buffer.from("value")
const digest = (tag) => new HashKey(KEY).digest(tag).toString("latin1")
const cell = (key) => cellOf(new HashKey(KEY).digest(key), BITS)

/** A near cache with a clock that the test sets, and a subscription if not told otherwise. */
function world({ bytes = 1 << 20, joined = true, ...more } = {}) {
  const clock = { now: 10_000 }
  const near = new Near({ bytes, now: () => clock.now, ...more })
  const made = {
    clock,
    near,
    position: 0,
    answer: (events = [], { more = false, gap, leaseMs = LEASE_MS } = {}) => ({
      position: `p${(made.position += 1)}`,
      leaseMs,
      more,
      events,
      gap: gap ? { key: KEY, bits: BITS } : undefined,
    }),
    feed: (events, how) => near.answered(near.call(), made.answer(events, how)),
    data: (number, tags = ["T:1"], { isManual = false, lifeMs = Infinity } = {}) => ({ number, lifeMs, isManual, digests: tags.map(digest) }),
    put: (key, number, tags, how) => near.put(near.ask(), key, VALUE, made.data(number, tags, how)),
  }
  if (joined) made.feed([], { gap: true })
  return made
}
const hard = (number, ...tags) => ({ number, kind: "h", items: tags.map(digest) })
const auto = (number, ...tags) => ({ number, kind: "a", items: tags.map(digest) })
const keyEvent = (number, key) => ({ number, kind: "k", items: [cell(key)] })
const flush = (number) => ({ number, kind: "f", items: [] })

test("digests are SipHash-2-4, as its authors' vectors say", () => {
  const of = (size) => new HashKey(KEY).digest(String.fromCharCode(...Array(size).keys())).toString("hex")
  assert.deepEqual([of(0), of(1), of(8), of(15)], ["310e0edd47db6f72", "fd67dc93c539f874", "6224939a79f5f593", "e545be4961ca29a1"])
})

test("before the first answer nothing is put away or served", () => {
  const { near, data } = world({ joined: false })
  assert.equal(near.ask(), undefined)
  assert.equal(near.put(undefined, "k", VALUE, data(0)), false)
  assert.equal(near.serves(), false)
})

test("a lease counts from before the call was sent", () => {
  const { near, clock, put, answer } = world()
  put("k", 0)
  const sent = near.call()
  clock.now += LEASE_MS / 2
  near.answered(sent, answer())
  clock.now += LEASE_MS / 2 - ERROR_MS - 1
  assert.equal(near.get("k"), VALUE)
  clock.now += 1
  assert.equal(near.get("k"), undefined)
})

test("a truncated answer applies its events and renews no lease", () => {
  const { near, clock, put, feed } = world()
  put("k", 0, ["T:1"])
  put("l", 0, ["T:2"])
  clock.now += LEASE_MS - ERROR_MS - 1
  feed([hard(1, "T:1")], { more: true })
  assert.equal(near.get("k"), undefined)
  assert.equal(near.get("l"), VALUE)
  clock.now += 1
  assert.equal(near.get("l"), undefined)
  feed([])
  assert.equal(near.get("l"), VALUE, "a lease that was over only stops serving")
})

test("an answer to a call that was given up, or a second one, changes nothing", () => {
  const { near, clock, put, feed, answer } = world()
  put("k", 0)
  const given = near.call()
  clock.now += 500
  feed([])
  const until = near.leaseUntil
  near.answered(given, answer([], { leaseMs: 50_000 }))
  assert.equal(near.leaseUntil, until)
  const once = near.call()
  near.answered(once, answer())
  clock.now += 100
  near.answered(once, answer([], { leaseMs: 50_000 }))
  assert.equal(near.leaseUntil, 10_500 + LEASE_MS - ERROR_MS)
})

test("a connection that breaks confirms nothing: the next call has the old position, and the lease ends by itself", () => {
  const { near, clock, put } = world()
  put("k", 0)
  const { position } = near.call()
  assert.equal(near.call().position, position)
  assert.equal(near.get("k"), VALUE)
  clock.now += LEASE_MS
  assert.equal(near.get("k"), undefined)
})

test("a gap, another generation or a server that started again, forgets everything", () => {
  const { near, put, feed } = world()
  const asked = near.ask()
  put("k", 5)
  feed([], { gap: true })
  assert.equal(near.get("k"), undefined)
  assert.equal(near.put(asked, "k", VALUE, { number: 9, lifeMs: 1_000, isManual: false, digests: [] }), false, "asked for before the gap")
  assert.equal(near.bytes, 0)
})

test("going on where nothing began forgets", () => {
  const { near, feed, put } = world()
  put("k", 0)
  near.forget()
  feed([])
  assert.equal(near.ask(), undefined)
  assert.equal(near.serves(), false)
})

test("events forget what they concern of values read before them, and nothing else", () => {
  const kinds = [
    ["hard", hard(7, "T:1")],
    ["soft", { ...hard(7, "T:1"), kind: "s" }],
    ["auto", auto(7, "T:1")],
    ["key", keyEvent(7, "old")],
    ["flush", flush(7)],
    ["floor", { ...flush(7), kind: "r" }],
    ["slots", { number: 7, kind: "l", items: ["\0\0\0\0\0\0\0\0"] }],
  ]
  for (const [name, event] of kinds) {
    const { near, put, feed } = world()
    put("old", 6)
    put("new", 7)
    put("other", 6, ["T:2"])
    put("manual", 6, ["T:1"], { isManual: true })
    feed([event])
    const isAll = ["flush", "floor", "slots"].includes(name)
    assert.equal(near.get("old"), undefined, name)
    assert.equal(near.get("new"), VALUE, `${name}: an event up to its number does not concern it`)
    assert.equal(near.get("other"), isAll ? undefined : VALUE, name)
    assert.equal(near.get("manual"), isAll || name === "hard" || name === "soft" ? undefined : VALUE, name)
  }
})

test("a value that was under way when an event was applied is not put away", () => {
  for (const [event, how] of [[hard(3, "T:1")], [auto(3, "T:1")], [keyEvent(3, "k")], [flush(3)], [auto(3, "T:1"), { isManual: true }]]) {
    const { near, feed, data } = world()
    const asked = near.ask()
    feed([event])
    assert.equal(near.put(asked, "k", VALUE, data(2, ["T:1"], how)), Boolean(how), JSON.stringify(event))
    assert.equal(near.put(asked, "k", VALUE, data(3, ["T:1"], how)), true, "read after the event")
  }
})

test("what is further back than is remembered is not put away", () => {
  const { near, feed, data } = world({ remembered: 4 })
  const asked = near.ask()
  feed([1, 2, 3, 4, 5].map((number) => hard(number, `Other:${number}`)))
  assert.equal(near.put(asked, "k", VALUE, data(0)), false)
  assert.equal(near.put(asked, "k", VALUE, data(1)), true)
})

test("what is remembered is bounded, and errs towards later", () => {
  const last = new Last(2)
  last.note("a", 1)
  last.note("b", 2)
  last.note("a", 3)
  last.note("c", 4)
  assert.deepEqual([last.of("a"), last.of("b"), last.of("c"), last.of("never")], [3, 2, 4, 2])
  assert.equal(last.names.size, 2)
})

test("a process that was stopped, or a machine that slept, serves nothing past its lease", () => {
  let up = 100_000
  let mono = 5_000
  const now = further(() => up, () => mono)
  const near = new Near({ bytes: 1 << 20, now })
  const answer = { position: "p", leaseMs: LEASE_MS, more: false, events: [], gap: { key: KEY, bits: BITS } }
  near.answered(near.call(), answer)
  near.put(near.ask(), "k", VALUE, { number: 0, lifeMs: Infinity, isManual: false, digests: [] })
  assert.equal(near.get("k"), VALUE)
  // Asleep: only the uptime went on.
  up += 3_600_000
  assert.equal(near.get("k"), undefined)
  near.answered(near.call(), { ...answer, gap: undefined })
  assert.equal(near.get("k"), VALUE)
  // Stopped: both did. From now on the monotonic clock is behind for good.
  up += LEASE_MS
  mono += LEASE_MS
  assert.equal(near.get("k"), undefined)
})

test("where the uptime cannot be read any more, nothing is served", () => {
  let up = 0
  const now = further(() => up, () => 0)
  assert.equal(now(), 0)
  const near = new Near({ bytes: 1 << 20, now })
  up = undefined
  assert.equal(now(), Infinity)
  near.answered(near.call(), { position: "p", leaseMs: LEASE_MS, more: false, events: [], gap: { key: KEY, bits: BITS } })
  up = 10
  assert.equal(now(), Infinity, "for good")
  assert.equal(near.serves(), false)
  assert.equal(near.leaseUntil, 0)
  assert.equal(readUptime("37273.87 69000.11\n"), 37_273_870)
  assert.equal(readUptime("nonsense"), undefined)
})

test("a life counts from before the value was asked for, and may end early by chance", () => {
  const { near, clock, data, feed } = world({ random: () => 0.5 })
  const asked = near.ask()
  clock.now += 300
  near.put(asked, "k", VALUE, data(0, [], { lifeMs: 600 }))
  near.put(asked, "early", VALUE, data(0, [], { lifeMs: 600 }), 100)
  clock.now += 200
  feed([])
  assert.equal(near.get("k"), VALUE)
  clock.now += 11
  assert.equal(near.get("early"), undefined, "a fill times ln 2")
  assert.equal(near.get("k"), VALUE)
  clock.now += 600 - 511 - ERROR_MS
  assert.equal(near.get("k"), undefined)
  assert.equal(near.entries.size, 0)
})

test("an own change takes effect before it is sent and until it has ended", () => {
  for (const name of ["tT:1", "kk"]) {
    const { near, put, data } = world()
    put("k", 0)
    put("l", 0, ["T:2"])
    const before = near.ask()
    near.began(name)
    assert.equal(near.get("k"), undefined)
    assert.equal(near.get("l"), VALUE)
    const during = near.ask()
    assert.equal(put("k", 100), false, "under way")
    near.began(name)
    near.ended(name)
    assert.equal(put("k", 100), false, "another one is under way")
    near.ended(name)
    assert.equal(near.put(before, "k", VALUE, data(100)), false, "asked for before it")
    assert.equal(near.put(during, "k", VALUE, data(100)), false, "asked for before it was acknowledged")
    assert.equal(put("k", 100), true)
  }
})

test("an own change that began before the subscription, or outlives it, concerns what comes later", () => {
  const { near, feed, put } = world({ joined: false })
  near.began("tT:1")
  feed([], { gap: true })
  assert.equal(put("k", 0), false)
  feed([], { gap: true })
  assert.equal(put("k", 0), false)
  near.ended("tT:1")
  assert.equal(put("k", 0), true)
})

test("everything changed: what is there goes, what was asked for before is not put away", () => {
  const { near, put, data } = world()
  put("k", 0)
  const asked = near.ask()
  near.everything()
  assert.equal(near.get("k"), undefined)
  assert.equal(near.put(asked, "k", VALUE, data(9)), false)
  assert.equal(put("k", 9), true)
})

test("a read that took long does not take the place of a later one's value", () => {
  const { near, data } = world()
  const asked = near.ask()
  near.put(asked, "k", Buffer.from("later"), data(5))
  assert.equal(near.put(asked, "k", Buffer.from("earlier"), data(4)), false)
  assert.equal(String(near.get("k")), "later")
})

test("it stays within its bytes; what was used last stays", () => {
  const { near, put } = world({ bytes: 6_000 })
  for (let n = 0; n < 50; n += 1) {
    put(`k${n}`, 0, [`T:${n % 3}`])
    assert.equal(near.get("k0"), VALUE)
    assert.ok(near.bytes <= 6_000)
  }
  assert.equal(near.get("k1"), undefined)
  assert.equal(near.get("k49"), VALUE)
  assert.equal(near.put(near.ask(), "large", Buffer.alloc(10_000), { number: 0, lifeMs: 1, isManual: false, digests: [] }), false)
})

test("index and entries agree after any history", () => {
  const { pick } = seededRandom()
  const { near, feed, data, clock } = world({ bytes: 5_000 })
  const held = new Map()
  let number = 0
  for (let step = 0; step < 5_000; step += 1) {
    const key = `k${pick(20)}`
    const tag = `T:${pick(6)}`
    switch (pick(6)) {
      case 0: case 1: case 2: {
        const tags = Array.from({ length: pick(4) }, () => `T:${pick(6)}`)
        const isManual = pick(3) === 0
        if (near.put(near.ask(), key, VALUE, data(number, [...new Set(tags)], { isManual }))) held.set(key, { tags, isManual })
        break
      }
      case 3:
        feed([hard((number += 1), tag)])
        for (const [name, { tags }] of held) if (tags.includes(tag)) held.delete(name)
        break
      case 4:
        feed([auto((number += 1), tag)])
        for (const [name, { tags, isManual }] of held) if (tags.includes(tag) && !isManual) held.delete(name)
        break
      default:
        feed([keyEvent((number += 1), key)])
        held.delete(key)
    }
    clock.now += 1
    for (const name of near.entries.keys()) assert.ok(held.has(name), `step ${step}: ${name} should be gone`)
    for (const name of held.keys()) if (!near.entries.has(name)) held.delete(name)
    let bytes = 0
    let memberships = 0
    for (const entry of near.entries.values()) {
      bytes += entry.size
      memberships += entry.digests.length
    }
    assert.equal(near.bytes, bytes)
    const sizes = (table) => [...table.values()].reduce((sum, members) => sum + (members instanceof Set ? members.size : 1), 0)
    assert.equal(sizes(near.byTag), memberships)
    assert.equal(sizes(near.byCell), near.entries.size)
  }
  assert.ok(near.counts.kept > 1_000 && near.counts.dropped > 500 && near.counts.evicted > 20, JSON.stringify(near.counts))
})

test("what the server says is read, and nonsense is an error", () => {
  const event = Buffer.concat([
    Buffer.from([7, 0, 0, 0, 0, 0, 0, 0]), Buffer.from([0, 0, 0, 0]), Buffer.from("h"), Buffer.from([2, 0, 0, 0]),
    Buffer.from("digest01digest02"),
  ])
  const key = Buffer.concat([Buffer.alloc(12), Buffer.from("k"), Buffer.from([1, 0, 0, 0]), Buffer.from([5, 0, 0, 0, 0, 0, 0, 0])])
  assert.deepEqual(readEvents(Buffer.concat([event, key])), [
    { number: 7, kind: "h", items: ["digest01", "digest02"] },
    { number: 0, kind: "k", items: [5] },
  ])
  const answer = [Buffer.from("p"), 1000, 0, event]
  assert.equal(readAnswer(answer).gap, undefined)
  assert.deepEqual(readAnswer([...answer, [KEY, 20]]).gap, { key: KEY, bits: 20 })
  assert.deepEqual(readNear([3, -1, 1, Buffer.from("digest01digest01")]), { number: 3, lifeMs: Infinity, isManual: true, digests: ["digest01"] })
  assert.equal(readNear(null), undefined)
  const unknown = Buffer.from(event)
  unknown[12] = "x".charCodeAt(0)
  const far = Buffer.from(event)
  far[7] = 1
  for (const wrong of [event.subarray(1), event.subarray(0, 20), unknown, far]) assert.throws(() => readEvents(wrong))
  const nonsense = [null, "OK", [], answer.slice(0, 3), [...answer, [Buffer.alloc(15), 20]], [...answer, [KEY, 64]], [answer[0], -1, 0, event], [answer[0], 1, 0, null]]
  for (const wrong of nonsense) assert.throws(() => readAnswer(wrong), JSON.stringify(wrong))
  for (const wrong of ["x", [1, 2, 0], [1, 2, 0, Buffer.alloc(7)], [-1, 2, 0, Buffer.alloc(8)], [1, null, 0, "12345678"]]) assert.throws(() => readNear(wrong))
})
