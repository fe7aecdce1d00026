"use strict"
/** `medusa-mcache`: the caching module, in place of @medusajs/caching. */
const { McacheCachingModule } = require("./src/module/service")
const { loadModule } = require("./src/module/loader")

/** What Medusa's `Module` adds to a service without models: it joins no queries. */
McacheCachingModule.prototype.__joinerConfig ??= () => ({
  serviceName: "caching",
  primaryKeys: ["id"],
  linkableKeys: {},
  alias: [],
  schema: "",
  idPrefixToEntityName: {},
})

// In this form `import { McacheCachingModule } from` finds the name, too.
exports.__esModule = true
exports.McacheCachingModule = McacheCachingModule
exports.default = { service: McacheCachingModule, loaders: [loadModule], linkable: {} }
