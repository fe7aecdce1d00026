"use strict"
/**
 * Following the server: one call of MCACHE.FEED after the other, each parked in the server until there is something to
 * tell, on a connection of its own. The next call confirms what the answer before it told. A call that takes too long
 * is given up together with its connection, so its answer cannot come later.
 */
const { opened } = require("../wire/server")
const { readAnswer } = require("./replies")

/** What a call asks to be parked for; the server cuts it to a third of the lease. */
const WAIT_MS = 2_000
const PAUSE_MIN_MS = 10
const PAUSE_MAX_MS = 500

/**
 * Why the server grants nothing at the first question, in words for the one who starts the shop; undefined: that may
 * pass.
 */
function wrongFeed(refusal, name) {
  if (/^NONEAR the feed is switched off/.test(refusal)) {
    return `${name} grants no near caches: its switch mcache.feed is "no". Start it with --mcache.feed yes (or CONFIG SET mcache.feed yes), or leave the option near out.`
  }
  if (/unknown command/i.test(refusal)) return `the mcache module that ${name} has loaded knows no near caches. Load a newer one, or leave the option near out.`
  if (/^NOPERM/.test(refusal)) return `${name} does not let this user follow what is cleared (${refusal}). Allow MCACHE.FEED and keys that begin with the prefix, or leave the option near out.`
  return undefined
}

class Feed {
  /** @param {{ server: import("../wire/server").Server, near: import("./index").Near, prefix: string, log: any }} parts */
  constructor({ server, near, prefix, log }) {
    Object.assign(this, { server, near, log })
    this.prefix = prefix === "" ? [] : ["PREFIX", prefix]
    this.client = undefined
    this.closed = false
    this.leaseMs = undefined
    this.pause = PAUSE_MIN_MS
    this.timer = undefined
    /** What the server said at the first question that it refused, and when there was an answer of any kind. */
    this.refusal = undefined
    this.first = new Promise((resolve) => (this.heard = resolve))
  }

  /**
   * Begins to follow. Settles when the first question has its answer or could not be asked; to what is wrong for
   * good, in words.
   */
  async start() {
    this.#run()
    if (this.server.client.status !== "ready") return undefined
    await this.first
    return this.refusal && wrongFeed(this.refusal, this.server.name)
  }

  async #run() {
    while (!this.closed) {
      try {
        await this.#follow()
      } catch (error) {
        if (this.closed) break
        this.client?.disconnect()
        this.client = undefined
        this.#failed(error)
      }
      this.heard()
      await new Promise((resolve) => {
        this.timer = setTimeout(resolve, this.pause * (0.5 + Math.random() / 2))
        this.timer.unref?.()
      })
      this.pause = Math.min(PAUSE_MAX_MS, this.pause * 2)
    }
  }

  #failed(error) {
    if (error.name !== "ReplyError") return
    this.refusal ??= error.message
    this.log.once("feed", wrongFeed(error.message, this.server.name) ?? `nothing is kept near: ${this.server.name} says: ${error.message}`)
  }

  /** Asks again and again; throws when the connection is of no use any more, or the server refuses. */
  async #follow() {
    this.client = this.server.connection("medusa-mcache-feed")
    await opened(this.client, this.server.options.connectTimeout)
    while (!this.closed) {
      const sent = this.near.call()
      const args = [sent.position ?? "NEW", "WAIT", String(WAIT_MS), ...this.prefix]
      const reply = await this.#ask(args)
      if (this.closed) return
      let answer
      try {
        answer = readAnswer(reply)
      } catch (error) {
        // What it told is not known.
        this.near.forget()
        this.log.once("feed", `nothing is kept near: ${error.message}`)
        throw error
      }
      this.near.answered(sent, answer)
      this.leaseMs = answer.leaseMs
      this.pause = PAUSE_MIN_MS
      this.heard()
    }
  }

  #ask(args) {
    const { client, server } = this
    const { commandTimeout } = server.options
    // Before the first answer it is not known for how long the server parks.
    const parked = this.leaseMs === undefined ? WAIT_MS : Math.min(WAIT_MS, this.leaseMs / 3)
    const command = new server.ioredis.Command("MCACHE.FEED", args, { replyEncoding: null })
    return new Promise((resolve, reject) => {
      let isOver = false
      const timer = setTimeout(() => {
        // This process itself may have been busy: an answer that has come meanwhile is looked at before.
        setImmediate(() => {
          if (!isOver) reject(new Error("MCACHE.FEED is given up"))
        })
      }, parked + Math.min(commandTimeout, this.leaseMs ?? commandTimeout))
      const settle = (then) => (value) => {
        isOver = true
        clearTimeout(timer)
        then(value)
      }
      client.sendCommand(command)
      command.promise.then(settle(resolve), settle(reject))
    })
  }

  /** Serves nothing any more, and tells the server, so that no clear waits for this process. */
  close() {
    if (this.closed) return
    this.closed = true
    clearTimeout(this.timer)
    const position = this.near.ask()?.position
    this.near.forget()
    // On another connection: on its own a call is parked.
    if (position !== undefined && this.server.client.status === "ready") {
      const end = new this.server.ioredis.Command("MCACHE.FEED", [position, "END"])
      end.promise.catch(() => {})
      this.server.client.sendCommand(end)
    }
    this.client?.disconnect()
    this.heard()
  }
}

module.exports = { Feed, wrongFeed }
