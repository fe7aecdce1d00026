"use strict"
/**
 * Several processes with near caches read, write and clear at random, while the server is paused, stopped, cut off and
 * restarted and processes are stopped. Once a clear has resolved as acknowledged, no read that begins later may be
 * older.
 */
const { test } = require("node:test")
const assert = require("node:assert")
const { fork } = require("node:child_process")
const path = require("node:path")
const { seededRandom } = require("./support/random")
const { TestRedis } = require("./support/redis")
const { until } = require("./support/until")

const ROWS = 12
const NEAR = { bytes: 1 << 20 }

class Member {
  constructor(t, rows) {
    this.rows = rows
    this.child = fork(path.join(__dirname, "support/near-member.js"))
    this.answers = new Map()
    this.last = 0
    this.child.on("message", ({ id, value, load, row }) => {
      if (load !== undefined) return this.child.send({ loaded: load, version: this.rows[row].version })
      this.answers.get(id)(value)
      this.answers.delete(id)
    })
    t.after(() => this.child.kill("SIGKILL"))
  }

  ask(name, parts) {
    const id = (this.last += 1)
    this.child.send({ id, name, ...parts })
    return new Promise((resolve) => this.answers.set(id, resolve))
  }
}

class Checker {
  constructor(redis, members, rows, pick) {
    Object.assign(this, { redis, members, rows, pick })
    this.stale = []
    this.reads = 0
    this.clears = 0
    this.unacknowledged = 0
    this.isOver = false
  }

  member() {
    return this.members[this.pick(this.members.length)]
  }

  async reader() {
    while (!this.isOver) {
      const row = this.pick(ROWS)
      const { settled } = this.rows[row]
      const version = await this.member().ask("read", { row })
      this.reads += 1
      if (version < settled) this.stale.push({ row, version, settled })
    }
  }

  async writer() {
    while (!this.isOver) {
      const row = this.pick(ROWS)
      const of = this.rows[row]
      const version = (of.version += 1)
      const how = ["tag", "auto", "group", "key"][this.pick(4)]
      if (await this.member().ask("clear", { row, how })) {
        of.settled = Math.max(of.settled, version)
        this.clears += 1
      } else this.unacknowledged += 1
      await new Promise((resolve) => setTimeout(resolve, this.pick(20)))
    }
  }

  /** Reads and writes until so many more reads were made, a hundred of them from near caches. */
  async run(reads, clears, disaster) {
    this.isOver = false
    const goal = { reads: this.reads + reads, clears: this.clears + clears, nearHits: (await this.nearHits()) + 100 }
    const isDone = async () =>
      this.reads >= goal.reads && this.clears >= goal.clears && (await this.nearHits()) >= goal.nearHits
    const tasks = [...Array.from({ length: 6 }, () => this.reader()), ...Array.from({ length: 3 }, () => this.writer())]
    await disaster()
    await until("enough was read, also from near caches, and cleared", isDone)
    this.isOver = true
    await Promise.all(tasks)
  }

  async stats() {
    return await Promise.all(this.members.map((member) => member.ask("stats")))
  }

  async nearHits() {
    return (await this.stats()).reduce((sum, { nearHits }) => sum + nearHits, 0)
  }

  /**
   * Until every process has a lease, nothing that it cleared is owed, and no clear waits for a server before this
   * one.
   */
  async calm() {
    await until("no predecessor is waited for", async () => /near_predecessors_us:0\b/.test(await this.redis.ask("INFO", "mcache")))
    await until("every process has a lease and owes nothing", async () => (await this.stats()).every(({ leaseRuns, owed }) => leaseRuns && owed === 0))
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

const DISASTERS = {
  nothing: async () => {},
  "CLIENT PAUSE": async ({ redis }) => {
    for (let n = 0; n < 5; n += 1) {
      await redis.ask("CLIENT", "PAUSE", "60", "ALL").catch(() => {})
      await sleep(100)
    }
  },
  "connections are killed": async ({ redis }) => {
    for (let n = 0; n < 15; n += 1) {
      await redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes").catch(() => {})
      await sleep(50)
    }
  },
  "a process is stopped": async (checker) => {
    for (let n = 0; n < 3; n += 1) {
      const { child } = checker.member()
      child.kill("SIGSTOP")
      await sleep(700)
      child.kill("SIGCONT")
      await sleep(50)
    }
  },
  "the server is stopped": async ({ redis }) => {
    for (const ms of [200, 700]) {
      redis.pause()
      await sleep(ms)
      redis.resume()
      await sleep(100)
    }
  },
  "everything is flushed": async ({ redis }) => {
    for (let n = 0; n < 5; n += 1) {
      await redis.ask("FLUSHALL")
      await sleep(50)
    }
  },
  "the feed is switched off and on": async ({ redis }) => {
    await redis.ask("CONFIG", "SET", "mcache.feed", "no")
    await sleep(200)
    await redis.ask("CONFIG", "SET", "mcache.feed", "yes")
  },
  "the server is killed and comes back": async ({ redis }) => {
    await redis.kill()
    await sleep(100)
    await redis.run()
  },
}

/** Where each clear waits for a server before this one, a few are enough. */
const AWAITED = new Map([["the feed is switched off and on", 4], ["the server is killed and comes back", 4]])

test("after a clear has resolved, no process serves what is older, whatever happens", async (t) => {
  const { seed, pick } = seededRandom()
  const redis = await TestRedis.start(t, { args: ["--mcache.feed", "yes", "--mcache.near-lease-ms", "500"] })
  const rows = Array.from({ length: ROWS }, () => ({ version: 1, settled: 0 }))
  const members = Array.from({ length: 3 }, () => new Member(t, rows))
  const options = { redisUrl: redis.url, near: NEAR }
  await Promise.all(members.map((member) => member.ask("start", { options })))
  const checker = new Checker(redis, members, rows, pick)
  for (const [name, disaster] of Object.entries(DISASTERS)) {
    await t.test(name, async () => {
      await checker.calm()
      const before = { hits: await checker.nearHits(), reads: checker.reads, clears: checker.clears }
      await checker.run(1_500, AWAITED.get(name) ?? 40, () => disaster(checker))
      const hits = (await checker.nearHits()) - before.hits
      const told = `seed ${seed}: ${checker.reads - before.reads} reads, ${hits} near, ${checker.clears - before.clears} clears`
      console.log(`${name}: ${told}`)
      assert.deepEqual(checker.stale, [], told)
    })
  }
})
