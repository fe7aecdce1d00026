"use strict"
/**
 * Which loads are under way in this process, and with which token each of them began.
 *
 * A provider is told of a miss and later of a `set`, and nothing says which miss a set belongs to: two requests may
 * load the same key at the same time. So a set counts as begun when the *oldest* load of its key began that is still
 * open, and closes the newest. A result may thus be refused that could have been stored; it never counts as newer than
 * it is.
 *
 * A load that failed never ends here, and nothing tells it from one that takes long. So its place is kept for an hour:
 * a set that comes late counts from its own load, not from now. While younger loads of the key are open as well, it
 * counts as failed after a quarter of an hour, because until then every set counts from it, and after an invalidation
 * none is stored.
 */
const LIFE_MS = 60 * 60 * 1000
const DOUBT_MS = 15 * 60 * 1000
const KEYS_MAX = 50_000
/** More loads of one key at a time are not told apart. */
const LOADS_MAX = 64

class Fills {
  constructor(now = () => performance.now()) {
    this.now = now
    /** @type {Map<string, { loads: { token: Buffer | null, at: number }[], more: number, lastAt: number }>} */
    this.open = new Map()
    /** Until then a key that is not in the map may have a load that was not written down. */
    this.unsureUntil = 0
  }

  /**
   * A load begins.
   * @param {string} key
   * @param {Buffer | null} token null: the server was not asked, so what is loaded must not be stored
   */
  began(key, token) {
    const now = this.now()
    const known = this.open.get(key)
    if (known) {
      this.#forgetOld(known, now)
      known.lastAt = now
      if (known.loads.length < LOADS_MAX) known.loads.push({ token, at: now })
      else known.more += 1
      return
    }
    if (this.open.size >= KEYS_MAX) {
      this.#sweep(now)
      if (this.open.size >= KEYS_MAX) {
        this.unsureUntil = now + LIFE_MS
        return
      }
    }
    this.open.set(key, { loads: [{ token, at: now }], more: 0, lastAt: now })
  }

  /**
   * A load of the key ended, with or without a result.
   * @returns {{ from: Buffer | null | undefined, lease: Buffer | null | undefined, tookMs: number }} from: the token its result counts
   * from; null: it must not be stored; undefined: no load of this key began through the cache, so it counts from now.
   * lease: the token to give back if nothing is stored. tookMs: how long the load took, at least
   */
  ended(key) {
    const now = this.now()
    const known = this.open.get(key)
    if (known) this.#forgetOld(known, now)
    if (!known || known.loads.length === 0) {
      this.open.delete(key)
      return { from: now < this.unsureUntil ? null : undefined, lease: undefined, tookMs: 0 }
    }
    const { token: from } = known.loads.find((load) => !isInDoubt(load, now)) ?? known.loads[0]
    let lease
    let tookMs = 0
    if (known.more > 0) known.more -= 1
    else {
      const last = known.loads.pop()
      lease = last.token
      tookMs = now - last.at
    }
    if (known.loads.length === 0) this.open.delete(key)
    return { from, lease, tookMs }
  }

  /** How long the oldest open load of the key that is not in doubt has been under way, in ms; 0 if there is none. */
  age(key) {
    const now = this.now()
    const first = this.open.get(key)?.loads.find((load) => !isInDoubt(load, now))
    return first ? now - first.at : 0
  }

  /** The key was cleared: what is being loaded for it must not be stored. */
  spoil(key) {
    for (const load of this.open.get(key)?.loads ?? []) load.token = null
  }

  get size() {
    return this.open.size
  }

  /** Those that were not told apart are younger than the last one, which stands for them while they can be open. */
  #forgetOld(known, now, life = LIFE_MS) {
    if (now - known.lastAt > life) known.more = 0
    const kept = known.more > 0 ? 1 : 0
    while (known.loads.length > kept && now - known.loads[0].at > life) known.loads.shift()
  }

  /** There is no room: the loads that have most likely failed make way. */
  #sweep(now) {
    for (const [key, known] of this.open) {
      this.#forgetOld(known, now, DOUBT_MS)
      if (known.loads.length > 0) continue
      this.open.delete(key)
      this.unsureUntil = now + LIFE_MS
    }
  }
}

/** Whether it has most likely failed. */
const isInDoubt = (load, now) => now - load.at > DOUBT_MS

module.exports = { Fills, LIFE_MS, DOUBT_MS, KEYS_MAX, LOADS_MAX }
