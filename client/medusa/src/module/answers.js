"use strict"
/**
 * A request's answer waits until what the request has cleared is settled: near caches of other processes may serve it
 * until then. Medusa waits for clears that a writing method makes, but not for those that an event makes (links have
 * only these).
 */

/** @param {{ end: Function } | undefined} response @param {Set<Promise<unknown>>} unsettled */
function holdAnswer(response, unsettled) {
  if (!response) return
  const { end } = response
  response.end = function held(...args) {
    if (unsettled.size === 0) return end.apply(this, args)
    Promise.allSettled([...unsettled]).then(() => end.apply(this, args))
    return this
  }
}

module.exports = { holdAnswer }
