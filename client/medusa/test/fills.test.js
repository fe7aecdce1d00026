"use strict"
// src/fills.js: which token a `set` counts from, when several loads of a key are open.
const { test } = require("node:test")
const assert = require("node:assert")
const { Fills, LIFE_MS, DOUBT_MS, KEYS_MAX, LOADS_MAX } = require("../src/fills")

const token = (n) => Buffer.from(String(n))

test("a set counts from the miss before it, and only once", () => {
  const fills = new Fills()
  fills.began("k", token(1))
  assert.deepEqual(fills.ended("k").from, token(1))
  assert.equal(fills.ended("k").from, undefined)
})

test("while several loads of a key are open, each set counts from the oldest, in any order of their ends", () => {
  const fills = new Fills()
  for (const n of [1, 2, 3]) fills.began("k", token(n))
  // Which of the three ended is not known: it may have been the first.
  for (let n = 0; n < 3; n += 1) assert.deepEqual(fills.ended("k").from, token(1))
  assert.equal(fills.size, 0)
})

test("a load that began while the server was away is not stored, nor is what cannot be told from it", () => {
  const fills = new Fills()
  fills.began("k", null)
  fills.began("k", token(2))
  assert.equal(fills.ended("k").from, null)
  assert.equal(fills.ended("k").from, null)
})

test("a load that never ended is forgotten after its time", () => {
  let now = 0
  const fills = new Fills(() => now)
  fills.began("k", token(1))
  now = LIFE_MS + 1
  fills.began("k", token(2))
  assert.deepEqual(fills.ended("k").from, token(2))
})

test("a load that takes long counts from its own beginning, whatever began after it", () => {
  let now = 0
  const fills = new Fills(() => now)
  fills.began("k", token(1))
  now = DOUBT_MS - 1
  fills.began("k", token(2))
  // Which of the two ended is not known: it may be the first, after a quarter of an hour.
  assert.deepEqual(fills.ended("k").from, token(1))
  now = DOUBT_MS + 1
  assert.deepEqual(fills.ended("k").from, token(1))
  assert.equal(fills.ended("k").from, undefined)
  fills.began("k", token(3))
  now += LIFE_MS - 1
  assert.deepEqual(fills.ended("k").from, token(3), "it does not count from now")
})

test("a load that failed does not keep others from being stored for longer than its doubt", () => {
  let now = 0
  const fills = new Fills(() => now)
  fills.began("k", null)
  now = DOUBT_MS + 1
  assert.equal(fills.age("k"), 0)
  for (let n = 2; n < 5; n += 1) {
    fills.began("k", token(n))
    assert.deepEqual(fills.ended("k").from, token(n))
  }
  assert.equal(fills.ended("k").from, null, "it did not fail after all")
})

test("loads that were not told apart are not forgotten with an older one", () => {
  let now = 0
  const fills = new Fills(() => now)
  for (let n = 0; n < LOADS_MAX; n += 1) fills.began("k", token(n))
  now = LIFE_MS
  fills.began("k", token(LOADS_MAX))
  now = LIFE_MS + 1
  assert.deepEqual(fills.ended("k").from, token(LOADS_MAX - 1), "it is younger than this one")
})

test("more loads of one key than are told apart all count from the oldest", () => {
  const fills = new Fills()
  for (let n = 0; n < LOADS_MAX + 5; n += 1) fills.began("k", token(n))
  for (let n = 0; n < LOADS_MAX + 5; n += 1) assert.deepEqual(fills.ended("k").from, token(0))
  assert.equal(fills.ended("k").from, undefined)
})

test("with more keys than are remembered, what is not known is not stored", () => {
  let now = 0
  const fills = new Fills(() => now)
  for (let n = 0; n <= KEYS_MAX; n += 1) fills.began(`k${n}`, token(n))
  assert.equal(fills.ended(`k${KEYS_MAX}`).from, null)
  assert.deepEqual(fills.ended("k7").from, token(7))
  now = LIFE_MS + 1
  assert.equal(fills.ended("another").from, undefined)
})

test("the lease that is given back is that of the load that came last", () => {
  const fills = new Fills()
  fills.began("k", null)
  fills.began("k", token(2))
  const { from, lease } = fills.ended("k")
  assert.deepEqual([from, lease], [null, token(2)])
})

test("a cleared key spoils the loads that are open", () => {
  const fills = new Fills()
  fills.began("k", token(1))
  fills.spoil("k")
  assert.equal(fills.ended("k").from, null)
})
