"use strict"
/** What happened since the start, as plain numbers under fixed names. */
const NAMES = [
  "hits",
  "misses",
  // misses that were answered by another process's fill
  "waited",
  // stored, not stored because a tag was invalidated meanwhile, not stored because it could not be known
  "fills",
  "refused",
  "unfilled",
  // reads that did not ask the server: it was away, or a clear was not acknowledged yet
  "bypassed",
  "timeouts",
  "unreadable",
  // calls of clear, commands they became, tags that had to be sent again
  "clears",
  "invalidations",
  "retried",
  // acknowledged clears for which near caches of other processes were waited for: they confirmed, or time was up
  "settled",
  "settledByTime",
  // of the hits, those that were in this process; values put into it, and values that could not be
  "nearHits",
  "nearKept",
  "nearUnkept",
  "errors",
]

class Counters {
  constructor() {
    for (const name of NAMES) this[name] = 0
  }

  snapshot() {
    return { ...this }
  }
}

module.exports = { Counters, NAMES }
