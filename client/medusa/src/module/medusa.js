"use strict"
/** What this package asks of Medusa's framework: its modules, and their common schema. Loaded when Medusa starts. */
const SCHEMA_BASE = `
  scalar DateTime
  scalar JSON
  directive @enumValue(value: String) on ENUM_VALUE
`

/** @returns {{ configs: any[], schema: any, modules: Map<string, any> }} */
function loadedMedusa() {
  const { GraphQLUtils } = require("@medusajs/framework/utils")
  const { MedusaModule } = require("@medusajs/framework/modules-sdk")
  const configs = MedusaModule.getAllJoinerConfigs()
  const texts = configs.map((config) => config?.schema ?? "").join("\n")
  const { schema } = GraphQLUtils.cleanGraphQLSchema(SCHEMA_BASE + texts)
  return {
    configs,
    schema: GraphQLUtils.makeExecutableSchema({ typeDefs: GraphQLUtils.mergeTypeDefs(schema) }),
    modules: new Map(MedusaModule.getLoadedModules().flatMap((instances) => Object.entries(instances ?? {}))),
  }
}

module.exports = { loadedMedusa }
