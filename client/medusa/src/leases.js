"use strict"
/**
 * How long a process asks to be the only one that fills a key, and for which keys it does not ask.
 *
 * Medusa does not say when a load failed: then nothing is stored, and its waiters are woken by the end of the lease
 * only. So a lease lasts as long as loads of late took, several times over; and a key whose load did not end is for a
 * while read without one.
 */
const LEASE_MIN_MS = 1_000
/** A load may take so many times the average before another process is asked to. */
const PATIENCE = 8
/** Of the average, how much the latest load counts. */
const WEIGHT = 0.1
const WITHOUT_MS = 60_000
const KEYS_MAX = 10_000

class Leases {
  constructor(longestMs, now = () => performance.now()) {
    this.longestMs = longestMs
    this.now = now
    this.averageMs = 0
    /** Keys that are read without a lease, and until when. @type {Map<string, number>} */
    this.without = new Map()
  }

  /** How long to ask for, in milliseconds. */
  length() {
    return Math.ceil(Math.min(this.longestMs, Math.max(LEASE_MIN_MS, PATIENCE * this.averageMs)))
  }

  /** A load took so long. */
  took(ms) {
    if (ms > 0) this.averageMs += (Math.min(ms, this.longestMs) - this.averageMs) * WEIGHT
  }

  /** Whether to ask for a lease of this key, whose oldest open load is so old. */
  isWanted(key, ageMs) {
    if (ageMs > this.length()) {
      if (this.without.size >= KEYS_MAX) this.without.clear()
      this.without.set(key, this.now() + WITHOUT_MS)
      return false
    }
    const until = this.without.get(key)
    if (until === undefined) return true
    if (until > this.now()) return false
    this.without.delete(key)
    return true
  }

  /** The key was stored: its loads do end. */
  stored(key) {
    this.without.delete(key)
  }
}

module.exports = { Leases, LEASE_MIN_MS, WITHOUT_MS }
