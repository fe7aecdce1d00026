"use strict"
/**
 * Invalidations on their way to the server.
 *
 *   add ──▶ batch of this turn of the event loop ──one INVALIDATE──▶ every primary ──acknowledged──▶ done
 *                                                        │ not acknowledged
 *                                                        ▼
 *                               owed: sent again until each primary has acknowledged, or nothing it
 *                                     concerns can still be alive; nothing is read meanwhile
 *
 * An acknowledged one is settled (see settles.js) before its caller is told.
 *
 * What is owed is a set: repeating an invalidation does no harm. The set is bounded; when it is full it becomes the one
 * invalidation that includes all others, that of everything under the prefix.
 */
const { Away } = require("./wire/server")
const { LONGEST_MS } = require("./settles")
const { isForGood } = require("./wire/diagnosis")

const RETRY_MIN_MS = 50
const RETRY_MAX_MS = 2_000
const OWED_MAX = 10_000
/** Tags a command names at most, so that none is large. */
const CHUNK = 500
/** Entries may have been stored by processes with a longer ttl than this one has seen. */
const OUTLIVED_MIN_MS = 24 * 3600 * 1000

/** How an item is cleared: HARD also what is stored with `autoInvalidate: false`. */
const AUTO = 0
const HARD = 1
const KEY = 2

class Clears {
  /**
   * @param {{ server: import("./wire/server").Server, names: import("./names").Names, log: any, counters: any,
   *   settles?: import("./settles").Settles, near?: import("./near/index").Near }} parts settles: absent if near caches
   *   are not waited for. near: this process's own, if it has one
   */
  constructor({ server, names, log, counters, settles, near }) {
    this.server = server
    this.settles = settles
    this.near = near
    this.names = names
    this.log = log
    this.counters = counters
    /**
     * @type {{ items: Map<string, number>, done: Promise<boolean>, settle: (acknowledged: boolean) => void,
     *   sent: Promise<void>, leave: () => void } | null}
     */
    this.batch = null
    /** @type {Map<string, { mode: number, seq: number, outlivedAt: number }>} */
    this.owed = new Map()
    this.lastSeq = 0
    /** Up to which owed item a primary has acknowledged. @type {Map<string, number>} */
    this.acknowledged = new Map()
    /** The longest life of an entry stored by this process. */
    this.longestLifeMs = 0
    this.pause = RETRY_MIN_MS
    this.timer = undefined
    this.delivery = undefined
    /** Batches that are sent and have no answer yet. @type {Set<Promise<unknown>>} */
    this.underWay = new Set()
    this.closed = false
    server.onReady.add(() => this.owed.size > 0 && this.deliver())
  }

  /** An entry that lives so long was stored. @param {number} seconds 0: for ever */
  noteLife(seconds) {
    const lifeMs = seconds > 0 ? seconds * 1000 : Infinity
    if (lifeMs > this.longestLifeMs) this.longestLifeMs = lifeMs
  }

  /**
   * Adds tags to the batch of this turn of the event loop.
   * @param {string[]} tags as the server names them
   * @param {number} mode
   * @returns {Promise<boolean>} whether every primary acknowledged; if not, it is tried again in the background
   */
  add(tags, mode) {
    this.counters.clears += 1
    const batch = (this.batch ??= this.#newBatch())
    for (const tag of tags) {
      const name = mode === KEY ? `k${tag}` : `t${tag}`
      const known = batch.items.get(name)
      if (known === undefined) this.near?.began(name)
      if (known === undefined || mode > known) batch.items.set(name, mode)
    }
    return batch.done
  }

  #newBatch() {
    let settle, leave
    const done = new Promise((resolve) => (settle = resolve))
    const sent = new Promise((resolve) => (leave = resolve))
    setImmediate(() => this.flush())
    return { items: new Map(), done, settle, sent, leave }
  }

  /** Settles when what was added so far is on its way. */
  sent() {
    return this.batch?.sent ?? Promise.resolve()
  }

  /** Sends what was added so far. A read calls it first, so that it comes to the server after them. */
  flush() {
    const batch = this.batch
    if (!batch) return
    this.batch = null
    batch.leave()
    if (this.owed.size > 0) {
      // Others are waiting already; an attempt of its own would only cost this caller the deadline.
      this.#owe(batch.items)
      this.#ended(batch.items)
      this.deliver().then(async (leases) => {
        const isDelivered = this.owed.size === 0
        if (isDelivered) await this.#settled(leases)
        batch.settle(isDelivered)
      })
      return
    }
    this.#sendToAll(batch.items).then(batch.settle)
  }

  /** Waits until no near cache serves what the nodes have acknowledged. @param {{ node: string, leaseMs: number }[]} leases */
  async #settled(leases) {
    await Promise.all(leases.map(({ node, leaseMs }) => this.settles.wait(node, leaseMs)))
  }

  /** The primaries that can be told, and it is known how. */
  #primaries() {
    return new Map(this.server.isUnknown ? [] : this.server.primaries())
  }

  /** They are acknowledged or owed: while anything is owed, this process's near cache is not read. */
  #ended(items) {
    if (this.near) for (const name of items.keys()) this.near.ended(name)
  }

  /** Whether anything is unacknowledged that a value on this node may have been made from. */
  mayConcern(node) {
    return this.owed.size > 0 && (this.acknowledged.get(node) ?? 0) < this.lastSeq
  }

  /** @returns {Promise<boolean>} whether every primary acknowledged */
  async #sendToAll(items) {
    const primaries = this.#primaries()
    let isOwed = false
    const settling = []
    const sent = this.server.owners().map(async (node) => {
      try {
        if (!primaries.has(node)) throw new Away(`${node} is not connected`)
        const leaseMs = await this.#sendTo(node, items)
        if (leaseMs > 0) settling.push(this.settles.wait(node, leaseMs))
      } catch {
        // At once, not when all have answered: from now on nothing of this node is read.
        if (!isOwed) this.#owe(items)
        isOwed = true
      }
    })
    const all = Promise.all(sent)
    this.underWay.add(all)
    await all
    this.underWay.delete(all)
    this.#ended(items)
    await Promise.all(settling)
    return !isOwed
  }

  /** Resolves when the node has acknowledged; to how long near caches may go on serving some of it, in milliseconds. */
  async #sendTo(node, items) {
    const commands = []
    for (const mode of [AUTO, HARD]) {
      const tags = []
      for (const [name, how] of items) if (how === mode) tags.push(name.slice(1))
      for (let at = 0; at < tags.length; at += CHUNK) {
        commands.push({ mode, tags: tags.slice(at, at + CHUNK) })
      }
    }
    for (const [name, how] of items) if (how === KEY) commands.push({ mode: KEY, tags: [name.slice(1)] })
    return Math.max(0, ...(await Promise.all(commands.map((command) => this.#send(node, command)))))
  }

  async #send(node, { mode, tags }) {
    try {
      const settles = this.settles && this.server.hasSettle
      if (mode === KEY) {
        if (this.server.nodeOf(tags[0]) !== node) return 0
        await this.server.at(node, this.server.hasClear ? "MCACHE.CLEAR" : "UNLINK", tags)
        // It does not say whether a process has the key; SETTLE does.
        return settles ? LONGEST_MS : 0
      }
      this.counters.invalidations += 1
      const words = [...(mode === AUTO ? ["AUTO"] : []), ...(settles ? ["NEAR"] : []), "TAGS"]
      const reply = await this.server.at(node, "MCACHE.INVALIDATE", [...words, ...tags])
      return leaseOf(reply, settles)
    } catch (error) {
      if (error instanceof Away || this.server.lacks) throw error
      if (!isForGood(error.message)) {
        // What is refused for another reason (a script that is running, a disk that is full) may still be served.
        this.log.once("clear put off", `${this.server.name} does not clear now, and is asked again until it does: ${error.message}`)
        throw error
      }
      if (tags.length === 1) {
        this.counters.errors += 1
        const [name] = tags
        this.log.once("refused clear", `${this.server.name} refuses to clear ${name}: ${error.message}`)
        if (!/^NOPERM/.test(error.message)) return 0
        // This user, or another one, may yet read what carries it: then everything goes, or nothing is read.
        if (name === this.names.everything && mode !== KEY) throw error
        return await this.#send(node, { mode: mode === AUTO ? AUTO : HARD, tags: [this.names.everything] })
      }
      // The others must not suffer for the one that is refused.
      return Math.max(0, ...(await Promise.all(tags.map((tag) => this.#send(node, { mode, tags: [tag] })))))
    }
  }

  #owe(items) {
    const outlivedAt = performance.now() + Math.max(this.longestLifeMs, OUTLIVED_MIN_MS)
    this.lastSeq += 1
    for (const [name, mode] of items) {
      const known = this.owed.get(name)
      this.owed.set(name, { mode: Math.max(mode, known?.mode ?? AUTO), seq: this.lastSeq, outlivedAt })
    }
    if (this.owed.size > OWED_MAX) {
      this.owed.clear()
      this.owed.set(`t${this.names.everything}`, { mode: HARD, seq: this.lastSeq, outlivedAt })
      this.log.warn(`more than ${OWED_MAX} clears could not be delivered; the whole cache will be cleared instead`)
    }
    if (this.closed) this.log.once("closed", `a clear came when the cache of this process had ended: ${this.unacknowledged().slice(0, 10).join(", ")}`)
    else this.log.once("owed", `${this.server.name} did not acknowledge a clear; it is sent again until it does, and reads go to the database meanwhile`)
    this.#retryLater()
  }

  #retryLater() {
    if (this.timer || this.closed || this.owed.size === 0) return
    // Jittered: after an outage not every process comes back in the same millisecond.
    this.timer = setTimeout(() => {
      this.timer = undefined
      this.pause = Math.min(RETRY_MAX_MS, this.pause * 2)
      this.deliver()
    }, this.pause * (0.5 + Math.random() / 2))
    this.timer.unref?.()
  }

  /**
   * Sends what is owed now, once at a time. Settles within the deadline of a command.
   * @returns {Promise<{ node: string, leaseMs: number }[]>} for how long near caches may go on serving some of it
   */
  deliver() {
    return (this.delivery ??= this.#deliver().finally(() => (this.delivery = undefined)))
  }

  async #deliver() {
    const now = performance.now()
    for (const [name, item] of this.owed) if (item.outlivedAt <= now) this.owed.delete(name)
    if (this.owed.size === 0) {
      this.near?.everything()
      return []
    }
    const upTo = this.lastSeq
    const items = new Map()
    for (const [name, item] of this.owed) items.set(name, item.mode)
    const primaries = this.#primaries()
    const leases = []
    const owners = this.server.owners()
    await Promise.all(
      owners.map(async (node) => {
        if (!primaries.has(node) || (this.acknowledged.get(node) ?? 0) >= upTo) return
        this.counters.retried += items.size
        try {
          // Reads need not wait until it is settled. A caller that was told that it is late does not either; one that
          // came meanwhile does.
          const leaseMs = await this.#sendTo(node, items)
          if (leaseMs > 0) leases.push({ node, leaseMs })
          this.acknowledged.set(node, upTo)
        } catch {
          // It stays owed.
        }
      }),
    )
    // The owners may have changed meanwhile: those of now count.
    const all = this.server.owners().every((node) => (this.acknowledged.get(node) ?? 0) >= upTo)
    if (all) {
      for (const [name, item] of this.owed) if (item.seq <= upTo) this.owed.delete(name)
      this.pause = RETRY_MIN_MS
    }
    if (this.owed.size > 0) {
      this.#retryLater()
      return leases
    }
    // In the same step: what was asked for while something was owed is not put away.
    this.near?.everything()
    this.log.info("every clear has been delivered")
    return leases
  }

  /**
   * Before the process ends: sends what is not acknowledged once more, and says what was not even then. Settles within
   * the deadlines of a few commands.
   */
  async drain() {
    this.flush()
    await Promise.all(this.underWay)
    // One that is under way may have begun before the last clear.
    for (let attempt = 0; attempt < 2 && this.owed.size > 0; attempt += 1) await this.deliver()
    if (this.owed.size === 0) return
    this.log.warn(
      `this process ends, and ${this.server.name} has not acknowledged ${this.owed.size} clears (${this.unacknowledged().slice(0, 10).join(", ")}). ` +
        'What they concern may be served by others: once it is back, clear everything: caching.clear({ tags: ["*"] }).',
    )
  }

  /** What is not acknowledged, in the shop's own names. */
  unacknowledged() {
    return [...this.owed.keys()].map((name) => this.names.strip(name.slice(1)))
  }

  close() {
    this.closed = true
    clearTimeout(this.timer)
  }
}

/** How long near caches may go on serving, as INVALIDATE answers; anything else is no acknowledgement. */
function leaseOf(reply, settles) {
  const numbers = settles && Array.isArray(reply) ? reply.map(Number) : [Number(reply)]
  const isAnswer = reply !== null && numbers.length === (settles ? 3 : 1) && numbers.every((number) => number >= 0)
  if (!isAnswer) throw new Away("what it says to MCACHE.INVALIDATE is no answer")
  return settles && numbers[1] > 0 ? numbers[2] : 0
}

module.exports = { Clears, AUTO, HARD, KEY, OWED_MAX }
