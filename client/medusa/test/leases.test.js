"use strict"
// src/leases.js: how long a process asks for, and what it does without.
const { test } = require("node:test")
const assert = require("node:assert")
const { Leases, LEASE_MIN_MS, WITHOUT_MS } = require("../src/leases")

test("a lease lasts several times as long as loads take, within its bounds", () => {
  const leases = new Leases(10_000)
  assert.equal(leases.length(), LEASE_MIN_MS)
  for (let n = 0; n < 200; n += 1) leases.took(500)
  assert.ok(leases.length() > 3_900 && leases.length() <= 4_000)
  for (let n = 0; n < 200; n += 1) leases.took(60_000)
  assert.equal(leases.length(), 10_000)
})

test("a key whose load did not end is read without a lease for a while, or until it is stored", () => {
  let now = 0
  const leases = new Leases(10_000, () => now)
  assert.ok(leases.isWanted("k", 0))
  assert.ok(leases.isWanted("k", LEASE_MIN_MS), "it may still be under way")
  assert.ok(!leases.isWanted("k", LEASE_MIN_MS + 1))
  assert.ok(!leases.isWanted("k", 0))
  assert.ok(leases.isWanted("other", 0))
  leases.stored("k")
  assert.ok(leases.isWanted("k", 0))
  assert.ok(!leases.isWanted("k", LEASE_MIN_MS + 1))
  now = WITHOUT_MS + 1
  assert.ok(leases.isWanted("k", 0))
})
