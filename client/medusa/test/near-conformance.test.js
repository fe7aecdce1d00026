"use strict"
/** What the provider has to do, once more with a near cache in front of each read by key. */
process.env.MCACHE_TEST_NEAR = "1"
const { test } = require("node:test")
const assert = require("node:assert")
require("./provider.test")
require("./fills.test")
const { nearHits } = require("./support/provider")

test("some of these reads were near", () => assert.ok(nearHits() > 10, `${nearHits()}`))
