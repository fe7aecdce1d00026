"use strict"
/** Connects when Medusa starts, and hands the store to the provider through Medusa's container. */
const { Store } = require("../store")

async function loadStore({ container, logger, options }) {
  const store = await new Store({ options: options ?? {}, logger }).start()
  // The form of what awilix registers, so that awilix itself is not needed here.
  container.register({ mcacheStore: { resolve: () => store } })
}

module.exports = { loadStore }
