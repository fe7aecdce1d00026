"use strict"
/** Waiting for a condition. The limit is generous: it is there for broken code, not for slow machines. */
const LIMIT_MS = 120_000
const PAUSE_MS = 10

async function until(what, condition) {
  const ends = performance.now() + LIMIT_MS
  let last
  for (;;) {
    try {
      const value = await condition()
      if (value) return value
      last = undefined
    } catch (error) {
      if (error.final) throw error
      last = error
    }
    if (performance.now() > ends) throw new Error(`waited in vain: ${what}${last ? ` (${last.message})` : ""}`)
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
  }
}

module.exports = { until }
