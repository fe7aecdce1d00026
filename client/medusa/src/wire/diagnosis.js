"use strict"
/** What is wrong with the server that the options name, in plain words. Pure: it is given what the server said. */

/** Modules load from this version on. */
const OLDEST = "7.0.5"
/** How servers refuse a user or a password. */
const REFUSED = /NOAUTH|WRONGPASS|invalid username-password|invalid password|without any password/i
const OWN_REDIS = "run a small Redis of your own for the cache, or use Medusa's own provider (@medusajs/caching-redis)."

/** Why a connection failed for good; undefined if it may come yet. */
function wrongSetting(refusal, name) {
  if (REFUSED.test(refusal)) return `${name} refuses user or password (${refusal}). Look at redisUrl and redisOptions.`
  if (/cluster support disabled/i.test(refusal)) return `${name} is no Redis Cluster. Give its address as redisUrl, without the option cluster.`
  if (/^Protocol error/i.test(refusal)) return `${name} answers, but is no Redis (${refusal}). Look at redisUrl: is it the right port?`
  return undefined
}

/** What to look at when the server cannot be reached. */
function whereItIsSet(options) {
  if (options.cluster) return "the option cluster"
  if (options.redisOptions.sentinels) return "redisOptions: the addresses of the Sentinels, and the name under which they know the primary"
  // A server without TLS does not answer at all: it waits for the rest of what it takes for a command.
  if (options.redisUrl?.startsWith("rediss:")) return "redisUrl: rediss:// is for servers with TLS"
  return "redisUrl"
}

/**
 * Whether it is the tag or the key of a clear that is refused: sent again, it would be refused again. Every other
 * refusal may pass, and what it concerns is served meanwhile.
 */
function isForGood(refusal) {
  return /max-tag-bytes|^WRONGTYPE|^ERR empty tag|^ERR \w+ too long/.test(refusal) || (/^NOPERM/.test(refusal) && !/permissions? to (run|execute)/.test(refusal))
}

/** Whether a server that answers so may answer otherwise in a moment. */
const isPassing = (refusal) => /^(BUSY|LOADING|CLUSTERDOWN|TRYAGAIN|MASTERDOWN|READONLY|NOREPLICAS|MISCONF|OOM|UNKILLABLE)\b/.test(refusal)

/** A field of INFO. */
const field = (info, name) => new RegExp(`^(?:${name}):(\\S+)`, "m").exec(info)?.[1]

/**
 * What a server lacks that has been reached; undefined if nothing.
 * @param {{ where: string, info: string, hasModule: boolean, clusterSize?: number }} found info: what INFO says, empty
 * if that may not be asked; clusterSize: how many primaries have slots, for a node that was given as if it stood alone
 */
function lacking({ where, info, hasModule, clusterSize = 0 }) {
  if (field(info, "redis_mode|server_mode") === "sentinel") {
    return `${where} is a Sentinel, which keeps no data. Leave redisUrl out and name it in redisOptions: { sentinels: [{ host, port }], name }.`
  }
  if (!hasModule) {
    const version = field(info, "valkey_version") ?? field(info, "redis_version") ?? "unknown"
    return isOlder(version, OLDEST)
      ? `${where} is Redis ${version}; the mcache module needs ${OLDEST} or later. Upgrade it, or use Medusa's own provider ` +
          "(@medusajs/caching-redis) with this one."
      : `${where} (version ${version}) has not loaded the mcache module. Start it with --loadmodule /path/to/libmcache.so. ` +
          `If it is a service that loads no modules, ${OWN_REDIS}`
  }
  if (clusterSize > 1) {
    return `${where} is one of ${clusterSize} primaries of a Redis Cluster. Give some of its nodes in the option cluster, in place of redisUrl: [{ host, port }].`
  }
  return undefined
}

function isOlder(version, than) {
  const [one, other] = [version, than].map((text) => text.split(".").map(Number))
  if (one.some(Number.isNaN)) return false
  for (let i = 0; i < 3; i += 1) {
    if ((one[i] ?? 0) !== (other[i] ?? 0)) return (one[i] ?? 0) < (other[i] ?? 0)
  }
  return false
}

module.exports = { lacking, wrongSetting, whereItIsSet, field, isForGood, isPassing, isOlder }
