"use strict"
/**
 * Prices change by the clock: a price list begins or ends without any write. A result with prices lives until the next
 * such moment at most. The moments are read with the module's own service and kept in the cache, cleared like any other
 * entry when a price list changes.
 */
const { any } = require("./tags")

const KEY = "price-boundaries"
const TYPES = ["PriceList", "PriceListRule", "Price"]
/** Clocks of the database and of this machine need not agree to the millisecond. */
const MARGIN_MS = 100

/** A read may have begun so long before its result is stored, and a clock may be so wrong when the moments are read. */
const GONE_MS = 2 * 24 * 3600 * 1000

/**
 * Seconds until the next moment, at most `ttl`; undefined if one has passed since the read began: then it is not known
 * on which side of it the prices are.
 * @param {number} ttl in seconds, 0: no expiry
 * @param {number[]} boundaries in milliseconds
 * @param {number} began when the read began
 */
function capped(ttl, boundaries, began, now = Date.now()) {
  let next = Infinity
  // A clock that was set back: what is to come has not passed.
  const from = Math.min(began, now) - MARGIN_MS
  for (const at of boundaries) {
    if (at < from) continue
    if (at <= now + MARGIN_MS) return undefined
    if (at < next) next = at
  }
  const seconds = (next - now - MARGIN_MS) / 1000
  if (ttl > 0 && seconds >= ttl) return ttl
  return Number.isFinite(seconds) ? seconds : ttl
}

class Prices {
  /** @param {{ store: import("../store").Store, service: () => any, outside: Function }} parts */
  constructor({ store, service, outside }) {
    this.store = store
    this.service = service
    this.outside = outside
  }

  /** The moments to come and those just gone, in milliseconds; undefined if they cannot be known. @returns {Promise<number[] | undefined>} */
  async boundaries() {
    const known = await this.store.get(KEY)
    if (known) return known
    try {
      const service = this.service()
      if (!service?.listPriceLists) {
        this.store.release(KEY)
        return []
      }
      const lists = await this.outside(() => service.listPriceLists({}, { select: ["id", "starts_at", "ends_at"], take: null }))
      const oldest = Date.now() - GONE_MS
      const moments = lists.flatMap((list) => [list.starts_at, list.ends_at]).map((at) => (at ? new Date(at).getTime() : 0))
      const coming = moments.filter((at) => at > oldest).sort((one, other) => one - other)
      await this.store.set({ key: KEY, data: coming, tags: TYPES.map(any) })
      return coming
    } catch {
      this.store.release(KEY)
      return undefined
    }
  }

  /** The ttl of a result with prices that began to be read at `began`; undefined: it must not be stored. */
  async ttl(ttl, began) {
    const boundaries = await this.boundaries()
    return boundaries && capped(ttl, boundaries, began)
  }
}

module.exports = { Prices, capped }
