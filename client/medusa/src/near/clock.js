"use strict"
/**
 * The clock by which leases are counted: one that goes on while the process is stopped and while the machine sleeps.
 *
 * Node's own clocks are CLOCK_MONOTONIC, which stands still while the machine sleeps, and the wall clock, which can be
 * set. Linux shows CLOCK_BOOTTIME in /proc/uptime, in hundredths of a second. The clock here is whichever of the two,
 * uptime or Node's monotonic clock, has come further since the start: it goes on if either does. Between two readings
 * it may fall short of what has passed by ERROR_MS, and leases are counted shorter by that.
 *
 * It is read within each call that serves. A flag that a timer clears would still be set when a stopped process goes
 * on.
 */
const fs = require("node:fs")

/** Two roundings of the uptime, which has hundredths. */
const ERROR_MS = 20
const FILE = "/proc/uptime"

/** Milliseconds of an uptime as Linux writes it; undefined for anything else. */
function readUptime(text) {
  const found = /^(\d+)\.(\d\d) /.exec(text)
  return found ? Number(found[1]) * 1000 + Number(found[2]) * 10 : undefined
}

/**
 * @param {() => number | undefined} uptime
 * @param {() => number} monotonic
 * @returns {() => number} milliseconds since now; past every lease once there is no uptime any more
 */
function further(uptime, monotonic) {
  const uptimeAtStart = uptime()
  const monotonicAtStart = monotonic()
  let isLost = false
  return () => {
    const up = isLost ? undefined : uptime()
    // For good: a lease that was counted from past every lease would never end.
    isLost = up === undefined
    return isLost ? Infinity : Math.max(up - uptimeAtStart, monotonic() - monotonicAtStart)
  }
}

/** The clock, or undefined where there is none that goes on while the machine sleeps. */
function bootClock() {
  const bytes = Buffer.alloc(64)
  let file
  const uptime = () => {
    try {
      // Kept open: that makes a reading take 2 microseconds instead of 5.
      file ??= fs.openSync(FILE, "r")
      return readUptime(bytes.toString("latin1", 0, fs.readSync(file, bytes, 0, bytes.length, 0)))
    } catch {
      return undefined
    }
  }
  if (uptime() === undefined) return undefined
  return further(uptime, () => performance.now())
}

module.exports = { bootClock, further, readUptime, ERROR_MS }
