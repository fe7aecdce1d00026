"use strict"
/**
 * Connections on which reads wait for another process's fill. A command that waits holds up everything behind it on its
 * connection, so waiting has connections of its own, opened when they are first needed.
 */
const { opened } = require("./server")

class Waiters {
  /**
   * @param {import("./server").Server} server
   * @param {number} count how many may wait at a time
   */
  constructor(server, count) {
    this.server = server
    this.count = count
    this.idle = []
    this.busy = new Set()
  }

  /**
   * FETCH that waits. Undefined when every connection is taken: then waiting is not worth more of them.
   * @returns {Promise<any[]> | undefined}
   */
  fetch(key, args, waitMs, late) {
    if (this.idle.length === 0 && this.busy.size >= this.count) return undefined
    const client = this.idle.pop() ?? this.server.connection("medusa-mcache-wait")
    this.busy.add(client)
    return this.#fetch(client, key, args, waitMs, late)
  }

  async #fetch(client, key, args, waitMs, late) {
    const ends = performance.now() + waitMs
    try {
      if (client.status !== "ready") await opened(client, Math.min(waitMs, this.server.options.connectTimeout))
      const left = Math.max(1, Math.ceil(ends - performance.now()))
      const limit = left + this.server.options.commandTimeout
      const reply = await this.server.call(key, "MCACHE.FETCH", [...args, "WAIT", String(left)], limit, late, client)
      this.#free(client)
      return reply
    } catch (error) {
      // Calls that are still under way on that connection must not hold up the next one.
      this.busy.delete(client)
      client.disconnect()
      throw error
    }
  }

  #free(client) {
    this.busy.delete(client)
    this.idle.push(client)
  }

  close() {
    for (const client of [...this.idle, ...this.busy]) client.disconnect()
    this.idle = []
    this.busy.clear()
  }
}

module.exports = { Waiters }
