import type { SubscriberArgs, SubscriberConfig } from "@medusajs/framework"
import { Modules } from "@medusajs/framework/utils"

// Writes where events are handled: in the worker process, if there is one.
export default async function touch({ event: { data }, container }: SubscriberArgs<{ product: string; subtitle: string }>) {
  await container.resolve(Modules.PRODUCT).updateProducts(data.product, { subtitle: data.subtitle })
}

export const config: SubscriberConfig = { event: "check.touch" }
