"use strict"
/**
 * The options of the provider and of the module: those of Medusa's Redis caching provider, and ours. A wrong one ends
 * the start with a sentence that says what was expected.
 */
const { inspect } = require("node:util")

const DEFAULTS = {
  ttl: 3600,
  prefix: "mc:",
  compressionThreshold: 2048,
  // How long a read, a set or a clear waits for the server's answer.
  commandTimeout: 500,
  // How long the start waits for the server, and a connection for being made.
  connectTimeout: 10_000,
  // How long the process that fills a key may take before another one is asked to.
  leaseMs: 10_000,
  // How long a read waits for another process that fills the same key; 0: not at all.
  waitMs: 2_000,
  // How many reads of a process may wait at a time, each on a connection of its own.
  waiters: 4,
  // Close to its expiry a value is renewed early by one process, with this estimate of how long a load takes; 0: never.
  earlyMs: 0,
  // Whether a clear also waits until no near cache of another process serves what it concerns.
  settle: true,
  // Values inside this process, in front of the server: { bytes }, how much they may take.
  near: false,
}

const TIMEOUT_MS_MAX = 1_000_000_000

/** Less than this holds next to nothing. */
const NEAR_BYTES_MIN = 1024 * 1024

const NUMBERS = Object.keys(DEFAULTS).filter((name) => typeof DEFAULTS[name] === "number")
/** Options that are no numbers, and what Medusa gives every module. Any other name at the top level is for ioredis. */
const OTHERS = ["prefix", "settle", "near", "redisUrl", "redisOptions", "cluster", "clusterOptions", "database"]

class OptionError extends Error {
  constructor(text) {
    super(`medusa-mcache: ${text}`)
    this.name = "OptionError"
  }
}

/** A URL that can be shown: without user and password. */
function shown(url) {
  try {
    const { protocol, host, pathname } = new URL(url)
    return `${protocol}//${host}${pathname === "/" ? "" : pathname}`
  } catch {
    return "(unreadable URL)"
  }
}

function checkUrl(url) {
  if (typeof url !== "string") throw new OptionError(`redisUrl must be a string, not ${typeof url}.`)
  if (url.startsWith("/")) return
  let parsed
  try {
    parsed = new URL(url)
  } catch {
    throw new OptionError("redisUrl is not a URL. Expected for example redis://127.0.0.1:6379/0.")
  }
  if (parsed.protocol !== "redis:" && parsed.protocol !== "rediss:") {
    throw new OptionError(`redisUrl begins with ${parsed.protocol}// but redis:// or rediss:// (TLS) was expected.`)
  }
  const database = parsed.pathname.replace(/^\//, "")
  if (database !== "" && !/^\d+$/.test(database)) {
    throw new OptionError(`redisUrl ends in "${database}", which is not the number of a database.`)
  }
}

/**
 * Checked options, with all defaults filled in.
 * @param {Record<string, any>} [given]
 * @param {Set<string> | string[]} [known] further names that belong to the caller and are left alone
 */
function readOptions(given = {}, known = []) {
  const options = { ...DEFAULTS }
  const mine = new Set([...NUMBERS, ...OTHERS, ...known])
  const legacy = {}
  for (const [name, value] of Object.entries(given)) {
    if (!mine.has(name)) legacy[name] = value
    else if (value !== undefined) options[name] = value
  }
  for (const name of NUMBERS) {
    if (typeof options[name] !== "number" || !(options[name] >= 0) || options[name] > 315_360_000_000) {
      throw new OptionError(`${name} must be a number of at least 0, not ${inspect(options[name])}.`)
    }
  }
  for (const name of ["commandTimeout", "connectTimeout", "leaseMs"]) {
    if (options[name] < 1) throw new OptionError(`${name} must be at least 1 (milliseconds).`)
  }
  // Timers that are set to more than 2^31 ms end at once.
  for (const name of ["commandTimeout", "connectTimeout"]) options[name] = Math.min(TIMEOUT_MS_MAX, options[name])
  options.leaseMs = Math.min(600_000, Math.ceil(options.leaseMs))
  options.waitMs = Math.min(600_000, Math.ceil(options.waitMs))
  options.earlyMs = Math.min(10_000, Math.ceil(options.earlyMs))
  options.waiters = Math.min(64, Math.ceil(options.waiters))
  if (typeof options.settle !== "boolean") throw new OptionError("settle must be true or false.")
  checkNear(options)
  if (typeof options.prefix !== "string") throw new OptionError("prefix must be a string.")

  const redis = { ...legacy, ...options.redisOptions }
  options.legacy = Object.keys(legacy)
  // ioredis would put it before keys but not before tags, which are arguments to it; so it becomes part of ours.
  const keyPrefix = keyPrefixOf(options, redis)
  if (keyPrefix) options.prefix = String(keyPrefix) + options.prefix
  delete redis.keyPrefix
  options.redisOptions = redis

  if (options.cluster !== undefined) {
    if (!Array.isArray(options.cluster) || options.cluster.length === 0) {
      throw new OptionError("cluster must be a list of some of the cluster's nodes, each { host, port } or a URL.")
    }
    for (const node of options.cluster) if (typeof node === "string") checkUrl(node)
  } else if (options.redisUrl !== undefined && options.redisUrl !== "") {
    checkUrl(options.redisUrl)
  } else if (!redis.sentinels && !redis.host && !redis.path) {
    throw new OptionError(
      "redisUrl is required (or cluster, or redisOptions with sentinels, host or path). " +
        "Medusa projects usually set it to process.env.CACHE_REDIS_URL; is that variable set?",
    )
  }
  if (!options.cluster && redis.sentinels && !options.redisUrl && !redis.name) {
    throw new OptionError('redisOptions.name is required beside sentinels: the name under which they know the primary, for example "mymaster".')
  }
  checkNearSetup(options)
  return options
}

/** The one that ioredis would take, wherever it stands: two shops may be told apart by nothing else. */
function keyPrefixOf({ redisUrl, cluster, clusterOptions }, redis) {
  if (cluster) return clusterOptions?.keyPrefix ?? clusterOptions?.redisOptions?.keyPrefix ?? redis.keyPrefix
  const query = typeof redisUrl === "string" ? redisUrl.split("?")[1] : undefined
  return new URLSearchParams(query).get("keyPrefix") ?? redis.keyPrefix
}

function checkNear({ near, settle }) {
  if (near === false) return
  const bytes = near?.bytes
  if (typeof bytes !== "number" || !(bytes >= NEAR_BYTES_MIN) || bytes > Number.MAX_SAFE_INTEGER) {
    throw new OptionError(`near must be false or { bytes }, a number of at least ${NEAR_BYTES_MIN}, not ${inspect(near)}.`)
  }
  if (!settle) throw new OptionError("near needs settle: without it, a clear would not wait for the near caches of other processes. Leave one of them out.")
}

/** What of the setup has no near cache. */
function checkNearSetup(options) {
  if (options.near === false) return
  const lacks = options.cluster ? "a Redis Cluster" : options.redisOptions.sentinels ? "Sentinels" : undefined
  if (lacks) throw new OptionError(`near works with one Redis, not with ${lacks}. Leave the option near out.`)
}

/** What the log calls the server. */
function serverName(options) {
  if (options.cluster) {
    const [first] = options.cluster
    return `the cluster at ${typeof first === "string" ? shown(first) : `${first.host ?? "127.0.0.1"}:${first.port}`}`
  }
  const { sentinels, host, port, path } = options.redisOptions
  if (sentinels) return `the primary "${options.redisOptions.name}" that the Sentinels name`
  if (options.redisUrl) return options.redisUrl.startsWith("/") ? options.redisUrl : shown(options.redisUrl)
  return path ?? `redis://${host}:${port ?? 6379}`
}

module.exports = { readOptions, serverName, shown, OptionError, DEFAULTS }
