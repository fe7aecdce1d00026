import type { ClusterNode, ClusterOptions, RedisOptions } from "ioredis"

/** Options of the provider; those of Medusa's own Redis provider, and further ones. */
export interface McacheOptions {
  /** For example `redis://127.0.0.1:6379/0`; `rediss://` with TLS. */
  redisUrl?: string
  /** Options of ioredis, for example `sentinels` and `name`. */
  redisOptions?: RedisOptions
  /** Some nodes of a Redis Cluster, in place of `redisUrl`. */
  cluster?: ClusterNode[]
  clusterOptions?: ClusterOptions
  /** Seconds; 0: no expiry. Default 3600. */
  ttl?: number
  /** Put before every key and tag. Default `mc:`. */
  prefix?: string
  /** Values of at least so many bytes are compressed. Default 2048. */
  compressionThreshold?: number
  /** Milliseconds that a read, a set or a clear waits for the server. Default 500. */
  commandTimeout?: number
  /** Milliseconds that the start waits for the server. Default 10,000. */
  connectTimeout?: number
  /** Milliseconds that a process may take to fill a key before another one is asked to. Default 10,000. */
  leaseMs?: number
  /** Milliseconds that a read waits for another process's fill; 0: not at all. Default 2,000. */
  waitMs?: number
  /** How many reads of a process may wait at a time, each on a connection of its own. Default 4. */
  waiters?: number
  /** Estimate of a load's duration in milliseconds, to renew values early; 0: never. Default 0. */
  earlyMs?: number
  /** Whether a clear also waits until no near cache of another process serves what it concerns. Default: true. */
  settle?: boolean
  /**
   * Of the module only: keep values inside this process as well, in at most so many bytes (at least a million). On Linux, with one Redis (no
   * Cluster, no Sentinel) whose switch `mcache.feed` is `yes`; for all processes of a shop or none. Default: false.
   */
  near?: { bytes: number } | false
}

/** Numbers since the start. */
export interface McacheStats {
  hits: number
  misses: number
  waited: number
  fills: number
  refused: number
  unfilled: number
  bypassed: number
  timeouts: number
  unreadable: number
  clears: number
  invalidations: number
  retried: number
  settled: number
  settledByTime: number
  /** Of the hits, those that were in this process. */
  nearHits: number
  nearKept: number
  nearUnkept: number
  errors: number
  /** Clears that the server has not acknowledged. */
  owed: number
  /** Keys that are being loaded. */
  open: number
  /** Whether the server is asked at present. */
  usable: boolean
}

export declare class McacheCachingProvider {
  static identifier: string
  constructor(container: { mcacheStore: unknown })
  get(input: { key?: string; tags?: string[] }): Promise<any>
  set(input: {
    key: string
    data: object
    ttl?: number
    tags?: string[]
    options?: { autoInvalidate?: boolean }
  }): Promise<void>
  clear(input: { key?: string; tags?: string[]; options?: { autoInvalidate?: boolean } }): Promise<void>
  stats(): McacheStats
  /** Tags and keys whose clearing Redis has not acknowledged yet. */
  unacknowledged(): string[]
}

declare const provider: { module: string; services: unknown[]; loaders: unknown[] }
export default provider
