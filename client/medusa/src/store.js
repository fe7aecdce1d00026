"use strict"
/**
 * get, set and clear over a server with the mcache module: what the provider and the module are made of. Knows nothing
 * of Medusa.
 *
 * A read that finds nothing begins a fill: the server hands out a token, and what is stored later counts from then. A
 * fill that an invalidation overtook is refused by the server, so a result that was loaded before a write and arrives
 * after it is never served.
 */
const { Server, Away, SetupError } = require("./wire/server")
const { Waiters } = require("./wire/waiters")
const { Names } = require("./names")
const { Fills } = require("./fills")
const { Leases } = require("./leases")
const { Clears, AUTO, HARD, KEY } = require("./clears")
const { Settles } = require("./settles")
const { Counters } = require("./counters")
const { Log } = require("./log")
const { readOptions, OptionError } = require("./options")
const { seal, open, expand, valueOf } = require("./envelope")
const { Near } = require("./near/index")
const { Feed } = require("./near/feed")
const { readNear } = require("./near/replies")
const { bootClock } = require("./near/clock")

/** How many keys a read by tags asks for in one command. */
const PAGE = 1_000

class Store {
  /**
   * @param {{ options: any, logger?: any, ioredis?: any, known?: string[] }} parts
   */
  constructor({ options, logger, ioredis = require("ioredis"), known = [] }) {
    this.options = readOptions(options, known)
    this.log = new Log(logger)
    this.counters = new Counters()
    this.names = new Names(this.options.prefix)
    this.server = new Server({ ioredis, options: this.options, log: this.log, counters: this.counters })
    this.waiters = new Waiters(this.server, this.options.waiters)
    /** Reads that wait for another fill, by key. @type {Map<string, Promise<any[]>>} */
    this.waits = new Map()
    this.fills = new Fills()
    this.leases = new Leases(this.options.leaseMs)
    const { server, names, log, counters } = this
    if (this.options.settle) this.settles = new Settles({ server, names, log, counters })
    /** Values inside this process; absent unless asked for. @type {Near | undefined} */
    this.near = this.options.near ? new Near({ bytes: this.options.near.bytes, now: nearClock() }) : undefined
    if (this.near) this.feed = new Feed({ server, near: this.near, prefix: names.prefix, log })
    this.clears = new Clears({ server, names, log, counters, settles: this.settles, near: this.near })
    if (this.options.legacy.length > 0) {
      this.log.warn(`options of ioredis belong into redisOptions: ${this.options.legacy.join(", ")}`)
    }
  }

  /** Connects. @throws if the server answers and cannot be used */
  async start() {
    await this.server.start()
    const wrong = await this.feed?.start()
    if (wrong) {
      this.close()
      throw new SetupError(wrong)
    }
    return this
  }

  /**
   * The value, a fresh one, or null: then the caller loads it and is expected to `set` or `release` it.
   * @param {string} key
   * @param {{ near?: boolean }} [how] near: it may come from this process's near cache, if there is one. That may lag
   *   behind the server until a clear is settled, so nothing that will itself be stored may be made of it: a fill that
   *   began after the clear would be accepted, and would stay
   * @returns {Promise<any>}
   */
  async get(key, { near = false } = {}) {
    const name = this.names.key(key)
    const started = performance.now()
    const isNear = near && this.#isNear()
    const held = isNear ? this.near.get(name) : undefined
    if (held) {
      this.counters.hits += 1
      return valueOf(held)
    }
    const asked = isNear ? this.near.ask() : undefined
    const { state, value, token, beside } = await this.#fetch(key, name, started, asked)
    // With a token the caller is the one to renew what could still be served.
    if (value && !token) {
      const expanded = await expand(value)
      const found = valueOf(expanded)
      if (found !== undefined && found !== null) {
        this.counters.hits += 1
        if (asked) this.#putNear(asked, name, expanded, beside)
        return found
      }
      this.counters.unreadable += 1
    }
    if (state !== "bypassed") this.counters.misses += 1
    this.fills.began(key, token ?? (state === "bypassed" ? null : await this.#token(name)))
    return null
  }

  /** While a clear is owed, it is not known what may be served. */
  #isNear() {
    return this.near !== undefined && this.clears.owed.size === 0
  }

  #putNear(asked, name, expanded, beside) {
    let data
    try {
      data = readNear(beside)
    } catch (error) {
      this.log.once("near", `nothing is kept near: ${error.message}`)
    }
    if (data && this.#isNear()) this.near.put(asked, name, expanded.copy(), data, this.options.earlyMs)
    else this.near.counts.unkept += 1
  }

  /** @param {{ position: string } | undefined} asked if the value may be put away */
  async #fetch(key, name, started, asked) {
    this.clears.flush()
    const node = this.server.nodeOf(name)
    if (this.clears.mayConcern(node)) {
      await this.clears.deliver()
      if (this.clears.mayConcern(node)) return this.#bypass()
    }
    if (!this.server.isUsable(name)) return this.#bypass()
    const { earlyMs, waitMs } = this.options
    const args = [name, "LEASE", String(this.leases.length())]
    if (earlyMs > 0) args.push("EARLY", String(earlyMs))
    if (asked) args.push("NEAR", asked.position)
    const late = (reply) => this.#tooLate(name, reply)
    try {
      if (!this.leases.isWanted(key, this.fills.age(key))) {
        const value = await this.server.call(name, "MCACHE.GET", [name])
        return { state: value ? "hit" : "busy", value }
      }
      const fetch = () => this.server.call(name, "MCACHE.FETCH", args, undefined, late)
      let reply = await fetch()
      // Again, while it is another one's turn: where a load fails, those who waited for it must not all load at once.
      while (String(reply[0]) === "busy") {
        const left = waitMs - (performance.now() - started)
        const next = left >= 1 ? await this.#wait(name, args, left, late, fetch) : undefined
        if (!next) break
        reply = next
      }
      return { state: String(reply[0]), value: reply[1], token: kept(reply[2]), beside: reply[3] }
    } catch (error) {
      if (!(error instanceof Away)) {
        this.counters.errors += 1
        this.log.once("read", `${this.server.name} refuses to be read: ${error.message}`)
      }
      return this.#bypass()
    }
  }

  /** Waits for another fill of the key; undefined if no connection is free for it. */
  async #wait(name, args, left, late, fetch) {
    const shared = this.waits.get(name)
    if (shared) {
      // Another reader of this process waits for the same. What it gets was read before this one may have begun, so
      // this one asks again, when there is something to get.
      await shared.catch(() => {})
      return await fetch()
    }
    const waiting = this.waiters.fetch(name, args, left, late)
    if (!waiting) return undefined
    this.waits.set(name, waiting)
    try {
      const reply = await waiting
      if (String(reply[0]) === "hit") this.counters.waited += 1
      return reply
    } finally {
      this.waits.delete(name)
    }
  }

  #bypass() {
    this.counters.bypassed += 1
    return { state: "bypassed" }
  }

  /** A fill begins out of turn: another process fills the key as well. */
  async #token(name) {
    try {
      return kept(await this.server.call(name, "MCACHE.TOKEN", [name]))
    } catch {
      return null
    }
  }

  /** The caller has gone to the database already: callers that wait for this fill must not wait any more. */
  #tooLate(name, reply) {
    if (reply?.[2]) this.#release(name, reply[2])
  }

  #release(name, token) {
    if (token && this.server.isUsable(name)) this.server.call(name, "MCACHE.RELEASE", [name, token]).catch(() => {})
  }

  /** What was loaded after a miss is not going to be stored. */
  release(key) {
    this.#release(this.names.key(key), this.fills.ended(key).lease)
  }

  /**
   * The bytes of a value as it is now; for `set` later, when the value may have been changed. Null for what cannot be
   * stored: the promise is looked at later, so it must not reject before.
   */
  seal(data, how) {
    return seal(data, this.options.compressionThreshold, how).catch((error) => {
      this.log.once("seal", `a value is not stored: ${error.message}`)
      return null
    })
  }

  /**
   * @param {{ key: string, data?: unknown, sealed?: Promise<Buffer | null>, ttl?: number, tags?: string[], autoInvalidate?: boolean }} entry ttl in
   * seconds, 0: no expiry
   * @returns {Promise<boolean>} whether it was stored
   */
  async set({ key, data, sealed, ttl = this.options.ttl, tags, autoInvalidate }) {
    const name = this.names.key(key)
    const { from, lease, tookMs } = this.fills.ended(key)
    this.leases.took(tookMs)
    if (from === null || this.clears.owed.size > 0 || !this.server.isUsable(name)) {
      this.counters.unfilled += 1
      this.#release(name, lease)
      return false
    }
    const value = await (sealed ?? (data === null ? null : this.seal(data)))
    if (value === null) {
      this.#release(name, lease)
      return false
    }
    const seconds = Number.isFinite(ttl) && ttl >= 0 ? ttl : this.options.ttl
    const args = [name, String(seconds), value]
    if (from) args.push("TOKEN", from)
    if (autoInvalidate === false) args.push("MANUAL")
    args.push("TAGS", ...this.names.stored(tags))
    this.clears.noteLife(seconds)
    this.near?.began(`k${name}`)
    try {
      const stored = await this.server.call(name, "MCACHE.SET", args)
      if (stored !== null) {
        this.counters.fills += 1
        this.leases.stored(key)
        return true
      }
      this.counters.refused += 1
      this.#release(name, lease)
      return false
    } catch (error) {
      this.counters.errors += 1
      if (!(error instanceof Away)) {
        // A cache that never caches must not be silent.
        this.log.once(`set ${error.message.slice(0, 12)}`, `${this.server.name} refuses to store ${key}: ${error.message}`)
      }
      this.#release(name, lease)
      return false
    } finally {
      this.near?.ended(`k${name}`)
    }
  }

  /**
   * The values of all live entries that carry any of the tags.
   * @param {string[]} tags
   * @returns {Promise<any[]>}
   */
  async getByTags(tags) {
    this.clears.flush()
    if (this.clears.owed.size > 0) await this.clears.deliver()
    if (this.clears.owed.size > 0) {
      this.counters.bypassed += 1
      return []
    }
    const names = new Set()
    try {
      await Promise.all(
        [...new Set(tags)].flatMap((tag) => this.server.primaries().map(([node]) => this.#keysOf(node, tag, names))),
      )
      const values = await Promise.all([...names].map((name) => this.server.call(name, "MCACHE.GET", [name])))
      const opened = await Promise.all(values.map((value) => (value ? open(value) : undefined)))
      return opened.filter((value) => value !== undefined && value !== null)
    } catch (error) {
      if (!(error instanceof Away)) this.log.once("read by tags", `${this.server.name}: ${error.message}`)
      return []
    }
  }

  async #keysOf(node, tag, into) {
    let cursor = "0"
    do {
      const [next, keys] = await this.server.at(node, "MCACHE.ENTRIES", [this.names.tag(tag), cursor, "COUNT", String(PAGE)])
      for (const key of keys) into.add(String(key))
      cursor = String(next)
    } while (cursor !== "0")
  }

  /**
   * Clears by tags. Entries stored with `autoInvalidate: false` are spared when `auto` is true.
   * @returns {Promise<boolean>} whether every server acknowledged; what did not is sent again until it does
   */
  clearTags(tags, auto = false) {
    if (tags.includes("*")) return this.clears.add([this.names.everything], HARD)
    const named = tags.filter((tag) => tag !== "").map((tag) => this.names.tag(tag))
    if (named.length === 0) return Promise.resolve(true)
    return this.clears.add(named, auto ? AUTO : HARD)
  }

  /** Clears one entry, and a fill of it that is under way. */
  clearKey(key) {
    this.fills.spoil(key)
    return this.clears.add([this.names.key(key)], KEY)
  }

  /** Whether entries lie on several servers, which are cleared one after another. */
  get isSpread() {
    return Boolean(this.options.cluster)
  }

  /** Settles when the clears so far are on their way. */
  sent() {
    return this.clears.sent()
  }

  /** Numbers since the start, and what is not acknowledged. */
  stats() {
    if (this.near) {
      this.counters.nearHits = this.near.counts.hits
      this.counters.nearKept = this.near.counts.kept
      this.counters.nearUnkept = this.near.counts.unkept
    }
    return {
      ...this.counters.snapshot(),
      owed: this.clears.owed.size,
      open: this.fills.size,
      usable: this.server.isUsable(this.names.everything),
    }
  }

  /** As `close`, when the clears so far were delivered, or it is said which were not. */
  async end() {
    await this.clears.drain()
    this.close()
  }

  close() {
    this.clears.close()
    this.feed?.close()
    this.settles?.close()
    this.waiters.close()
    this.server.close()
  }
}

/** A token in memory of its own: a reply's buffer is a part of a much larger one, and a load may last. */
const kept = (token) => (Buffer.isBuffer(token) ? Buffer.from(token) : undefined)

/** @throws {OptionError} where there is no clock by which a lease can be counted */
function nearClock() {
  const now = bootClock()
  if (!now) throw new OptionError("near needs a clock that goes on while the machine sleeps, which Node has on Linux only (/proc/uptime). Leave the option near out.")
  return now
}

module.exports = { Store }
