"use strict"
/**
 * A connection that is cut after any number of bytes, in either direction: in the middle of a command, of a reply, of
 * a value. Once a clear is acknowledged, at once or after it was owed, no read that begins later is older.
 */
const { test } = require("node:test")
const assert = require("node:assert")
const { TestRedis } = require("./support/redis")
const { Store } = require("../src/store")
const { listener } = require("./support/provider")
const { startPort } = require("./support/proxy")
const { seededRandom } = require("./support/random")
const { until } = require("./support/until")

const ROWS = 4

/** A port that leads to the server; each connection is cut after some bytes, those towards the server or those back. */
async function startCutter(t, port, pick) {
  const found = { cuts: 0, isOver: false }
  const url = await startPort(t, (near, connect) => {
    const far = connect(port)
    let left = found.isOver ? Infinity : 600 + pick(6_000)
    const cutsQuestions = pick(2) === 0
    const pass = (from, to, counts) => {
      from.on("data", (bytes) => {
        if (!counts || bytes.length < left) {
          if (counts) left -= bytes.length
          return to.write(bytes)
        }
        found.cuts += 1
        to.end(bytes.subarray(0, left))
        from.destroy()
      })
    }
    pass(near, far, cutsQuestions)
    pass(far, near, !cutsQuestions)
  })
  return Object.assign(found, { url })
}

test("a connection that is cut anywhere: no clear is lost, nothing old is served", async (t) => {
  const { seed, pick } = seededRandom()
  const redis = await TestRedis.start(t)
  const cutter = await startCutter(t, redis.port, pick)
  const stores = []
  const options = { redisUrl: cutter.url, settle: false, commandTimeout: 5_000, leaseMs: 1_000, waitMs: 50 }
  for (let n = 0; n < 2; n += 1) stores.push(await new Store({ options, logger: listener() }).start())
  t.after(() => stores.forEach((store) => store.close()))
  const rows = Array.from({ length: ROWS }, () => ({ version: 1, cleared: 0 }))
  const stale = []
  let reads = 0
  let hits = 0
  const isOver = () => cutter.cuts >= 150 && hits >= 300
  const reader = async () => {
    while (!isOver()) {
      const store = stores[pick(2)]
      const row = pick(ROWS)
      const { cleared } = rows[row]
      const found = await store.get(`row${row}`)
      reads += 1
      if (found) {
        hits += 1
        if (found.version < cleared) stale.push({ row, version: found.version, cleared })
        continue
      }
      const { version } = rows[row]
      await new Promise(setImmediate)
      await store.set({ key: `row${row}`, data: { version, text: "x".repeat(pick(3_000)) }, tags: [`Row:${row}`] })
    }
  }
  const writer = async () => {
    while (!isOver()) {
      const row = pick(ROWS)
      const version = (rows[row].version += 1)
      const store = stores[pick(2)]
      const isAcknowledged = await (pick(3) ? store.clearTags([`Row:${row}`], true) : store.clearKey(`row${row}`))
      // What is owed is delivered later, and nothing older is served from then on either.
      if (!isAcknowledged) await until("it is delivered", () => store.stats().owed === 0)
      rows[row].cleared = version
      await new Promise((resolve) => setTimeout(resolve, pick(30)))
    }
  }
  await Promise.all([...Array.from({ length: 6 }, reader), writer()])
  cutter.isOver = true
  await until("every clear is delivered", () => stores.every((store) => store.stats().owed === 0))
  for (const [row, { version }] of rows.entries()) {
    for (const store of stores) {
      const found = await store.get(`row${row}`)
      if (found && found.version < version) stale.push({ row, version: found.version, cleared: version, atRest: true })
    }
  }
  assert.deepEqual(stale, [], `seed ${seed}: ${reads} reads, ${hits} hits, ${cutter.cuts} cuts`)
  t.diagnostic(`${reads} reads, ${hits} hits, ${cutter.cuts} cuts`)
})
