"use strict"
/** Connects when Medusa starts, and hands the store to the provider through Medusa's container. */
const { Store } = require("../store")
const { OptionError } = require("../options")

async function loadStore({ container, logger, options }) {
  if (options?.near) {
    throw new OptionError(
      "near is an option of the module, not of the provider: Medusa's own caching module does not tell which reads become part of another result " +
        "that is stored, and does not wait until a clear is settled. Leave near out, or use medusa-mcache in place of @medusajs/caching.",
    )
  }
  const store = await new Store({ options: options ?? {}, logger }).start()
  // The form of what awilix registers, so that awilix itself is not needed here.
  container.register({ mcacheStore: { resolve: () => store } })
}

module.exports = { loadStore }
