// What the store is asked for after every change. Each read is a path; `of` gives it the world of the moment.
const FIELDS = "fields=*variants.calculated_price,%2Bvariants.inventory_quantity,%2Bmetadata,%2Btags"

export const READS = [
  ["regions", () => "/store/regions"],
  ["region", (w) => `/store/regions/${w.region}`],
  ["currencies", () => "/store/currencies"],
  ["categories", () => "/store/product-categories?limit=100&fields=*category_children,*parent_category"],
  ["category", (w) => `/store/product-categories/${w.category}?fields=name,*products`],
  ["category with products", (w) => `/store/product-categories?handle=${w.categoryHandle}&fields=name,*products`],
  ["collections", () => "/store/collections?limit=50"],
  ["collection", (w) => `/store/collections/${w.collection}`],
  ["tags", () => "/store/product-tags?limit=50"],
  ["types", () => "/store/product-types?limit=50"],
  ["list", (w) => `/store/products?limit=12&region_id=${w.region}&${FIELDS}`],
  ["second page", (w) => `/store/products?limit=12&offset=12&region_id=${w.region}&${FIELDS}`],
  ["newest", (w) => `/store/products?limit=6&order=-created_at&region_id=${w.region}&${FIELDS}`],
  ["by title", (w) => `/store/products?limit=6&order=title&region_id=${w.region}`],
  ["in another region", (w) => `/store/products?limit=6&region_id=${w.region2}&${FIELDS}`],
  ["product", (w) => `/store/products/${w.product}?region_id=${w.region}&${FIELDS}`],
  ["product with categories", (w) => `/store/products/${w.product}?fields=*categories,*collection,*type,*tags`],
  ["other product", (w) => `/store/products/${w.product2}?region_id=${w.region}&${FIELDS}`],
  ["draft", (w) => `/store/products/${w.draft}?region_id=${w.region}`],
  ["by handle", (w) => `/store/products?handle=${w.handle}&region_id=${w.region}&${FIELDS}`],
  ["of the category", (w) => `/store/products?limit=12&category_id=${w.category}&region_id=${w.region}`],
  ["of an empty category", (w) => `/store/products?limit=12&category_id=${w.emptyCategory}&region_id=${w.region}`],
  ["of the collection", (w) => `/store/products?limit=12&collection_id=${w.collection}&region_id=${w.region}`],
  ["of an empty collection", (w) => `/store/products?limit=12&collection_id=${w.emptyCollection}&region_id=${w.region}`],
  ["with the tag", (w) => `/store/products?limit=12&tag_id=${w.tag}&region_id=${w.region}`],
  ["of the type", (w) => `/store/products?limit=12&type_id=${w.type}&region_id=${w.region}`],
  ["search", (w) => `/store/products?limit=12&q=${w.word}&region_id=${w.region}`],
  ["variants", (w) => `/store/product-variants?limit=10&product_id=${w.product}&region_id=${w.region}&fields=*calculated_price`],
  ["shipping options", (w) => `/store/shipping-options?cart_id=${w.cart}`],
  ["payment providers", (w) => `/store/payment-providers?region_id=${w.region}`],
  ["return reasons", () => "/store/return-reasons"],
]

/** Answers without what differs from request to request by itself. */
export function settled({ status, json }) {
  return JSON.stringify({ status, json }, (name, value) => {
    if (Array.isArray(value) && value.every((item) => item && typeof item === "object" && item.id)) {
      // Relations have no order of their own.
      return name === "products" || name === "regions" || name === "variants"
        ? value
        : [...value].sort((one, other) => (String(one.id) < String(other.id) ? -1 : 1))
    }
    // The order of properties is not part of the answer either.
    if (value && typeof value === "object" && !Array.isArray(value)) {
      return Object.fromEntries(Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)))
    }
    return value
  })
}

/** What a kind of change may concern, by the first word of its name: for runs that have to be short. */
const RELATED = {
  product: /list|newest|by title|product|draft|handle|collection|category|categories|tag|type|search|variants|page/,
  products: /list|newest|product|search|page/,
  variant: /^product$|^list|variants|other/,
  variants: /^product$|^list|variants/,
  option: /^product$|^list|variants/,
  "price": /^product$|^list|other product|another region|variants|shipping/,
  stock: /^product$|^list|by title|shipping/,
  collection: /collection|^product with|^list/,
  category: /categor|^product with|^list/,
  tag: /tag|^product/,
  type: /type|^product/,
  channel: /list|product|page/,
  key: /^list|^product$/,
  store: /regions|currencies|^list/,
  region: /region|payment|^list|^product$|shipping/,
  tax: /^product$|^list|variants|shipping/,
  shipping: /shipping/,
  return: /return/,
  customer: /^product$/,
}

export function related(kind) {
  const pattern = RELATED[kind.split(/[: ]/)[0]]
  return pattern ? READS.filter(([name]) => pattern.test(name)) : READS
}
