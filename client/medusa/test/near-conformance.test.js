"use strict"
/** What the provider has to do, once more with a near cache in front of each read by key. */
process.env.MCACHE_TEST_NEAR = "1"
const { test } = require("node:test")
const { TestRedis } = require("./support/redis")
const { until } = require("./support/until")
const { startProvider, nearHits } = require("./support/provider")
require("./provider.test")
require("./fills.test")

test("reads of such a provider are near", async (t) => {
  // How many of those above were depends on the machine: a near cache whose lease has ended asks the server.
  t.diagnostic(`${nearHits()} of the reads above were near`)
  const redis = await TestRedis.start(t)
  const provider = await startProvider(t, { redisUrl: redis.url })
  await provider.set({ key: "a", data: [1] })
  await until("a read is near", async () => {
    const before = nearHits()
    await provider.get({ key: "a" })
    return nearHits() > before
  })
})
