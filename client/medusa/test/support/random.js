"use strict"
/**
 * Random choices of a test, replayed with `MCACHE_SEED=...`: `pick(limit)` is a whole number below the limit.
 * Mulberry32.
 */
function seededRandom() {
  const seed = Number(process.env.MCACHE_SEED ?? Math.floor(Math.random() * 1e9))
  console.log(`MCACHE_SEED=${seed}`)
  let state = seed >>> 0
  const pick = (limit) => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
  return { seed, pick }
}

module.exports = { seededRandom }
