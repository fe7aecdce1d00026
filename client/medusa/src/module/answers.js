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
  let isHeld = false
  response.end = function held(...args) {
    // It ends once, as it would have.
    if (isHeld) return this
    if (unsettled.size === 0) return end.apply(this, args)
    isHeld = true
    Promise.allSettled([...unsettled])
      .then(() => end.apply(this, args))
      // What `end` would have thrown (a body of a wrong type) has no caller any more, and must not end the process.
      .catch((error) => this.destroy(error))
    return this
  }
}

module.exports = { holdAnswer }
