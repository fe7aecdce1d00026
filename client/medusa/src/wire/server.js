"use strict"
/**
 * One Redis, one primary found through Sentinel, or one Cluster, over ioredis: commands with a deadline, and whether it
 * pays to send any. Knows nothing of keys' meaning, values or tags.
 *
 * A server that does not answer within the deadline is left alone until it answers again: the reply that was missed, or
 * the first one on a new connection, ends that. Reads that come meanwhile are told at once.
 */
const { serverName } = require("../options")
const { lacking, wrongSetting, whereItIsSet, field, isPassing } = require("./diagnosis")

/** A server that has not answered for so long is given a new connection. */
const GIVE_UP_MS = 5_000
/** So long after a look that a server did not answer comes the next one; so often a replica is left, at most. */
const LOOK_AGAIN_MS = 1_000
/** What is needed of the module, and what an older one may lack. */
const COMMANDS = ["MCACHE.FETCH", "MCACHE.INVALIDATE", "MCACHE.CLEAR", "MCACHE.SETTLE"]
const RETRY_MIN_MS = 50
const RETRY_MAX_MS = 2_000
/** How the one server of a standalone setup is called where others have a node's address. */
const ALONE = "server"
/** The server could not be asked, or did not answer in time. */
class Away extends Error {
  constructor(text) {
    super(text)
    this.name = "Away"
  }
}

class SetupError extends Error {
  constructor(text) {
    super(`medusa-mcache: ${text}`)
    this.name = "SetupError"
  }
}

class Server {
  /**
   * @param {{ ioredis: any, options: any, log: import("../log").Log, counters: any }} parts
   */
  constructor({ ioredis, options, log, counters }) {
    this.ioredis = ioredis
    this.Redis = ioredis.Redis ?? ioredis.default ?? ioredis
    this.options = options
    this.log = log
    this.counters = counters
    this.name = serverName(options)
    /** Nodes that missed a deadline, and since when. @type {Map<string, number>} */
    this.silent = new Map()
    /** What the server lacks, in words; undefined while it lacks nothing. @type {string | undefined} */
    this.lacks = undefined
    /** Until the first look at which commands it has. */
    this.isUnknown = true
    /** Whether the server knows MCACHE.CLEAR, which also refuses fills of the key. */
    this.hasClear = false
    /** Whether it knows near caches, and so MCACHE.SETTLE. */
    this.hasSettle = false
    this.closed = false
    this.lookTimer = undefined
    this.leftAt = -Infinity
    /** Called whenever a connection can be used (again). @type {Set<() => void>} */
    this.onReady = new Set()
    this.client = this.connection("medusa-mcache")
    this.client.on("ready", () => this.#ready())
    if (this.options.cluster) this.client.on("+node", () => this.#ready())
  }

  /** A further connection with the same settings, not opened yet. */
  connection(name) {
    const { options } = this
    const common = {
      connectTimeout: options.connectTimeout,
      connectionName: name,
      ...options.redisOptions,
      retryStrategy: persistent(options.redisOptions.retryStrategy),
      // What the rest of this file relies on: nothing waits in a queue, nothing is sent twice unasked, and commands
      // that ioredis does not know keep their names (its automatic pipelines lose them).
      lazyConnect: true,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      enableAutoPipelining: false,
      commandTimeout: undefined,
    }
    let client
    if (options.cluster) {
      const { retryStrategy, lazyConnect, maxRetriesPerRequest, ...redisOptions } = common
      client = new this.ioredis.Cluster(options.cluster, {
        slotsRefreshTimeout: options.connectTimeout,
        ...options.clusterOptions,
        clusterRetryStrategy: persistent(options.clusterOptions?.clusterRetryStrategy ?? retryStrategy),
        lazyConnect,
        enableOfflineQueue: false,
        enableAutoPipelining: false,
        scaleReads: "master",
        keyPrefix: undefined,
        redisOptions: { maxRetriesPerRequest, ...redisOptions, ...options.clusterOptions?.redisOptions },
      })
    } else if (options.redisUrl) {
      client = new this.Redis(options.redisUrl, common)
    } else {
      client = new this.Redis(common)
    }
    client.on("error", (error) => {
      if (!this.closed) this.log.once("connection", `no connection to ${this.name}: ${error.message}`)
    })
    return client
  }

  /**
   * Connects and looks whether the server can do what is needed.
   * @throws {SetupError} if it answers and cannot; a server that does not answer is waited for in the background
   */
  async start() {
    // ioredis tells of a refused password by an event, and goes on trying.
    let refusal = ""
    const refused = new Promise((_, reject) => {
      this.client.on("error", (error) => {
        refusal = error?.lastNodeError?.message ?? error?.message ?? ""
        if (wrongSetting(refusal, this.name)) reject(error)
      })
    })
    try {
      await within(Promise.race([this.client.connect(), refused]), this.options.connectTimeout)
    } catch (error) {
      refusal ||= error?.lastNodeError?.message ?? error?.message ?? ""
    }
    const wrong = wrongSetting(refusal, this.name)
    if (wrong) {
      this.close()
      throw new SetupError(wrong)
    }
    if (this.client.status !== "ready") {
      this.log.warn(
        `${this.name} cannot be reached (${refusal || "no answer"}). The shop runs without its cache until it can; ` +
          `if that does not pass by itself, look at ${whereItIsSet(this.options)}.`,
      )
      return
    }
    await this.check()
    if (this.lacks) {
      this.close()
      throw new SetupError(this.lacks)
    }
  }

  /** Looks at every primary's commands; what is missing is left in `lacks`. */
  async check() {
    const limit = this.options.connectTimeout
    let lacks
    let hasClear = true
    let hasSettle = true
    let looked = 0
    let unanswered = 0
    for (const [node] of this.primaries()) {
      try {
        const found = await this.#known(node, limit)
        const info = await this.#allowed(node, "INFO", [], limit)
        const where = node === ALONE ? this.name : `${node} of ${this.name}`
        const isNode = !this.options.cluster && field(info, "cluster_enabled") === "1"
        const size = isNode ? field(await this.#allowed(node, "CLUSTER", ["INFO"], limit), "cluster_size") : 0
        lacks ??= lacking({ where, info, hasModule: Boolean(found[0] && found[1]), clusterSize: Number(size ?? 0) })
        if (!lacks && node === ALONE && field(info, "role") === "slave") {
          this.log.once("replica", `${this.name} is a replica, which takes no writes; nothing is cached while it is. Look at redisUrl.`)
        }
        hasClear &&= Boolean(found[2])
        hasSettle &&= Boolean(found[3])
      } catch (error) {
        if (error instanceof Away || isPassing(error.message)) {
          unanswered += 1
          continue
        }
        lacks = `${this.name} refuses COMMAND INFO (${error.message}).`
      }
      looked += 1
    }
    // What a server has that did not answer is not known, and not guessed: as before, until it does.
    if (unanswered > 0) this.#lookLater()
    if (looked === 0) return
    this.isUnknown = false
    this.lacks = lacks
    this.hasClear = hasClear && !lacks
    this.hasSettle = hasSettle && !lacks
  }

  /** Which of the commands a node knows, in their order. */
  async #known(node, limit) {
    try {
      return await this.at(node, "COMMAND", ["INFO", ...COMMANDS], limit)
    } catch (error) {
      // Who may not ask for commands may still be allowed to use them.
      if (!/^NOPERM|unknown command/i.test(error.message)) throw error
    }
    return await Promise.all(COMMANDS.map((name) => this.#isKnown(node, name, limit)))
  }

  /** Without arguments no command does anything: the error says whether it is known, to every user. */
  async #isKnown(node, name, limit) {
    try {
      await this.at(node, name, [], limit)
    } catch (error) {
      if (error instanceof Away || isPassing(error.message)) throw error
      return !/unknown command/i.test(error.message)
    }
    return true
  }

  #lookLater() {
    if (this.closed) return
    this.lookTimer ??= setTimeout(() => {
      this.lookTimer = undefined
      this.#look()
    }, LOOK_AGAIN_MS)
    this.lookTimer.unref?.()
  }

  /** What the server answers to a question that a user may be forbidden to ask: empty then. */
  async #allowed(node, name, args, ms) {
    try {
      return String(await this.at(node, name, args, ms))
    } catch (error) {
      if (/^NOPERM/.test(error.message)) return ""
      throw error
    }
  }

  async #ready() {
    this.silent.clear()
    await this.#look()
  }

  async #look() {
    await this.check().catch(() => {})
    if (this.closed) return
    if (this.lacks) this.log.once("lacks", this.lacks)
    for (const tell of this.onReady) tell()
  }

  /** Which node owns a key, as far as this process knows. */
  nodeOf(key) {
    if (!this.options.cluster) return ALONE
    return this.client.slots[this.#slot(key)]?.[0] ?? "unknown"
  }

  /** Every primary that can be sent a command, by name. @returns {[string, any][]} */
  primaries(client = this.client) {
    if (!this.options.cluster) return client.status === "ready" ? [[ALONE, client]] : []
    return client.nodes("master").map((node) => [`${node.options.host}:${node.options.port}`, node])
  }

  /** Every primary that owns slots, connected or not: each of them must acknowledge. */
  owners() {
    if (!this.options.cluster) return [ALONE]
    const owners = new Set()
    for (const nodes of this.client.slots ?? []) if (nodes?.[0]) owners.add(nodes[0])
    return owners.size > 0 ? [...owners] : ["unknown"]
  }

  /** Whether it pays to send a command for this key. */
  isUsable(key) {
    return !this.closed && !this.lacks && this.client.status === "ready" && !this.silent.has(this.nodeOf(key))
  }

  /**
   * A command about one key. Replies are buffers.
   * @param {string} key decides the node
   * @param {(string | Buffer)[]} args
   * @param {number} [ms] the deadline
   * @param {(reply: any) => void} [late] is told of a reply that came after the deadline
   */
  call(key, name, args, ms = this.options.commandTimeout, late = undefined, client = this.client) {
    return this.#send(client, this.nodeOf(key), name, args, ms, late, this.options.cluster ? this.#slot(key) : undefined)
  }

  /** A command for one primary. */
  at(node, name, args, ms = this.options.commandTimeout) {
    const found = this.primaries().find(([other]) => other === node)
    if (!found) return Promise.reject(new Away(`${node} is not connected`))
    return this.#send(found[1], node, name, args, ms)
  }

  /** A command for one primary over a further connection, which is opened if need be. */
  async over(client, node, name, args, ms) {
    const ends = performance.now() + ms
    if (client.status !== "ready") await opened(client, Math.min(ms, this.options.connectTimeout))
    const found = this.primaries(client).find(([other]) => other === node)
    if (!found) throw new Away(`${node} is not connected`)
    return await this.#send(found[1], node, name, args, Math.max(1, ends - performance.now()))
  }

  #send(client, node, name, args, ms, late, slot) {
    const command = new this.ioredis.Command(name, args, { replyEncoding: null })
    if (slot !== undefined) command.slot = slot
    return new Promise((resolve, reject) => {
      let isLate = false
      let isSettled = false
      const timer = setTimeout(() => {
        // This process itself may have been busy: replies that have come meanwhile are looked at before.
        setImmediate(() => {
          if (isSettled) return
          isLate = true
          this.counters.timeouts += 1
          // Of a further connection it is not known who is at fault; the shop's own one finds out by itself.
          if (this.#isOwn(client)) this.#isSilent(node, client)
          reject(new Away(`${this.name} did not answer ${name} within ${ms} ms`))
        })
      }, ms)
      const settle = (error, reply) => {
        clearTimeout(timer)
        isSettled = true
        // An error reply is an answer, too.
        if (!error || error.name === "ReplyError") this.silent.delete(node)
        if (error && /^READONLY/.test(error.message)) this.#leave(client)
        if (!isLate) {
          if (!error) resolve(reply)
          else if (error.name === "ReplyError" && !/^(LOADING|CLUSTERDOWN|TRYAGAIN|MASTERDOWN|READONLY)/.test(error.message)) {
            if (args.length > 0 && name.startsWith("MCACHE.") && /unknown command/i.test(error.message)) this.#lost(error)
            reject(error)
          } else reject(new Away(error.message))
        } else if (!error) late?.(reply)
      }
      client.sendCommand(command)
      command.promise.then((reply) => settle(null, reply), settle)
    })
  }

  /** Whether this is the connection that reads and clears take. */
  #isOwn(client) {
    return client === this.client || this.primaries().some(([, own]) => own === client)
  }

  #isSilent(node, client) {
    if (this.silent.has(node) || this.closed) return
    const since = performance.now()
    this.silent.set(node, since)
    this.log.once("silent", `${this.name} does not answer; reads go to the database until it does`)
    // The answer that is missing may never come, if the network swallowed it.
    const timer = setTimeout(() => {
      if (this.silent.get(node) !== since || this.closed) return
      if (!this.options.cluster) client.disconnect(true)
      // A cluster's own connections are replaced when it looks at its slots again.
      else this.silent.delete(node)
    }, GIVE_UP_MS)
    timer.unref?.()
  }

  /** It has become a replica, and its address may lead to the new primary: the next connection will tell. */
  #leave(client) {
    const now = performance.now()
    if (this.options.cluster || this.closed || now - this.leftAt < LOOK_AGAIN_MS) return
    this.leftAt = now
    client.disconnect(true)
  }

  #lost(error) {
    if (this.lacks) return
    this.lacks = `${this.name} does not know the mcache module any more (${error.message})`
    this.log.once("lacks", this.lacks)
  }

  #slot(key) {
    // ioredis computes it for commands that it knows.
    return new this.ioredis.Command("get", [key]).getSlot()
  }

  close() {
    this.closed = true
    clearTimeout(this.lookTimer)
    this.client.disconnect()
  }
}

/** Pauses between attempts to connect, those that are asked for if they are any: there is no last attempt. */
function persistent(theirs) {
  return (attempt, ...rest) => {
    const asked = typeof theirs === "function" ? theirs(attempt, ...rest) : undefined
    if (typeof asked === "number" && asked >= 0) return asked
    const pause = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.min(attempt, 10))
    return pause * (0.5 + Math.random() / 2)
  }
}

/** The promise's outcome, or Away after so many milliseconds. */
function within(promise, ms) {
  let timer
  const end = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Away(`no answer within ${ms} ms`)), ms)
  })
  promise.catch(() => {})
  return Promise.race([promise, end]).finally(() => clearTimeout(timer))
}

/** Settles when a connection is open. */
function opened(client, limitMs) {
  return new Promise((resolve, reject) => {
    const settle = (then) => {
      clearTimeout(timer)
      client.off("ready", ready)
      client.off("close", closed)
      then()
    }
    const ready = () => settle(resolve)
    const closed = () => settle(() => reject(new Away("a further connection could not be made")))
    const timer = setTimeout(closed, limitMs)
    client.once("ready", ready)
    client.once("close", closed)
    if (client.status === "wait") client.connect().catch(() => {})
  })
}

module.exports = { Server, Away, SetupError, within, opened }
