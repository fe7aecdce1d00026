"use strict"
/**
 * Waiting until no near cache serves what was cleared. Clients of other kinds may keep values of the same server inside
 * their processes; each serves them under a lease (docs/near.md). What the server has acknowledged is *settled* once
 * each of them has confirmed it or its lease is over.
 *
 * One SETTLE is under way for a primary at a time: callers that come meanwhile share the next one. It waits inside the
 * server, so it has a connection of its own. Without an answer, time settles: the lease that the server named, and
 * four percent for two clocks.
 */
const { Away } = require("./wire/server")

const TWO_CLOCKS = 1.04
/** The longest lease there can be, and the time a former primary may take to notice that it is none any more. */
const LONGEST_MS = 5_200

class Settles {
  /** @param {{ server: import("./wire/server").Server, names: import("./names").Names, log: any, counters: any, now?: () => number }} parts */
  constructor({ server, names, log, counters, now = () => performance.now() }) {
    Object.assign(this, { server, log, counters, now })
    this.prefix = names.prefix === "" ? [] : ["PREFIX", names.prefix]
    /** By node: what is under way, and what waits for it to end. @type {Map<string, { running: boolean, next?: Round }>} */
    this.nodes = new Map()
    this.client = undefined
  }

  /**
   * Settles when everything that the node has acknowledged by now is settled.
   * @param {string} node
   * @param {number} [leaseMs] for how long, at most, it may be served
   * @returns {Promise<void>}
   */
  wait(node, leaseMs = LONGEST_MS) {
    const of = this.nodes.get(node) ?? { running: false, next: undefined }
    this.nodes.set(node, of)
    const until = this.now() + leaseMs * TWO_CLOCKS
    if (!of.next) {
      let settle
      const done = new Promise((resolve) => (settle = resolve))
      of.next = { until, done, settle }
    } else of.next.until = Math.max(of.next.until, until)
    const { done } = of.next
    if (!of.running) this.#run(node, of)
    return done
  }

  async #run(node, of) {
    of.running = true
    while (of.next) {
      const round = of.next
      of.next = undefined
      if (await this.#isConfirmed(node, round)) this.counters.settled += 1
      else {
        this.counters.settledByTime += 1
        await pause(round.until - this.now())
      }
      round.settle()
    }
    of.running = false
  }

  async #isConfirmed(node, round) {
    const left = Math.ceil(round.until - this.now())
    if (left <= 0) return true
    try {
      const client = (this.client ??= this.server.connection("medusa-mcache-settle"))
      const limit = left + this.server.options.commandTimeout
      const [, , waiting] = await this.server.over(client, node, "MCACHE.SETTLE", [String(left), ...this.prefix], limit)
      return Number(waiting) === 0
    } catch (error) {
      if (!(error instanceof Away)) this.log.once("settle", `${this.server.name} refuses MCACHE.SETTLE, so clears wait for the longest lease: ${error.message}`)
      return false
    }
  }

  close() {
    this.client?.disconnect()
  }
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)))
}

module.exports = { Settles, LONGEST_MS }
