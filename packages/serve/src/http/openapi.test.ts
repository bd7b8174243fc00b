// The description of the API, held against the server: whatever fits it or nearly fits it gets an answer that fits it.
import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import { expect, test } from "vitest";
import { startServer } from "../../test/server.ts";
import { limits } from "./schemas.ts";

const server = await startServer({ contextLength: 64 });
const document = (await (await fetch(`${server.url}/openapi.json`)).json()) as {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
  readonly components: { readonly schemas: Record<string, object> };
};

interface Operation {
  readonly requestBody?: { readonly content: Record<string, { readonly schema: Schema }> };
  readonly responses: Record<string, { readonly content: Record<string, { readonly schema: object }> }>;
}

/** As much of JSON Schema as the document uses. */
interface Schema {
  readonly type?: string | readonly string[];
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly properties?: Record<string, Schema>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly additionalProperties?: Schema | boolean;
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly minItems?: number;
  readonly maxItems?: number;
}

const ajv = new Ajv2020({ strict: false });
ajv.addSchema({ $id: "document", components: document.components });
const local = (schema: object) => JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"document#/'));

/** Values that fit a schema. Counts are kept small, so that answers are short. */
function fitting(schema: Schema): fc.Arbitrary<unknown> {
  if (schema.anyOf) return fc.oneof(...schema.anyOf.map(fitting));
  if (Array.isArray(schema.type)) return fc.oneof(...schema.type.map((type) => fitting({ ...schema, type })));
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.enum) return fc.constantFrom(...schema.enum);
  const { minimum = -50, maximum = 1000, minItems = 0 } = schema;
  switch (schema.type) {
    case "null":
      return fc.constant(null);
    case "boolean":
      return fc.boolean();
    case "integer":
      return fc.integer({ min: minimum, max: Math.max(minimum, Math.min(maximum, 4)) });
    case "number":
      return fc.double({
        min: schema.exclusiveMinimum ?? minimum,
        max: maximum,
        noNaN: true,
        minExcluded: schema.exclusiveMinimum !== undefined,
      });
    case "string":
      return fc.string({
        minLength: schema.minLength ?? 0,
        maxLength: Math.min(schema.maxLength ?? 12, 12),
        unit: "grapheme",
      });
    case "array":
      return fc.array(fitting(schema.items ?? {}), { minLength: minItems, maxLength: Math.max(minItems, 3) });
    case "object": {
      const { properties = {}, required = [], additionalProperties } = schema;
      if (Object.keys(properties).length === 0 && typeof additionalProperties === "object") {
        return fc.dictionary(
          fc.oneof(fc.nat(300).map(String), fc.string({ maxLength: 3 })),
          fitting(additionalProperties),
          { maxKeys: 3 },
        );
      }
      const entries = Object.entries(properties).map(([name, property]) => [name, fitting(property)] as const);
      return fc.record(Object.fromEntries(entries), { requiredKeys: [...required] });
    }
    default:
      return fc.jsonValue({ maxDepth: 1 });
  }
}

/** Fields that are there to be refused by name, or mean something only to a certain model. */
const special = new Set(["model", "suffix", "tools", "functions", "response_format", "modalities", "logit_bias"]);

/** Bodies that fit, bodies of which one field does not, and anything at all. */
function bodies(schema: Schema): fc.Arbitrary<unknown> {
  const fits = fitting(schema) as fc.Arbitrary<Record<string, unknown>>;
  const known = fits.map((body) => Object.fromEntries(Object.entries(body).filter(([name]) => !special.has(name))));
  const broken = fc
    .tuple(known, fc.constantFrom(...Object.keys(schema.properties ?? {})), fc.jsonValue({ maxDepth: 2 }))
    .map(([body, name, value]) => ({ ...body, [name]: value }));
  return fc.oneof(
    { arbitrary: known, weight: 4 },
    { arbitrary: broken, weight: 3 },
    { arbitrary: fits, weight: 1 },
    fc.jsonValue(),
  );
}

function checkAnswer(operation: Operation, status: number, type: string, body: string): void {
  const described = operation.responses[String(status)];
  if (described === undefined) throw new Error(`answered ${status}, which is not described: ${body}`);
  const content = described.content[type];
  if (content === undefined) throw new Error(`answered ${type}, which is not described for ${status}`);
  if (type !== "application/json") return;
  const validate = ajv.compile(local(content.schema));
  if (!validate(JSON.parse(body))) throw new Error(`${ajv.errorsText(validate.errors)} in ${body}`);
}

const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
);

test("it is a document of OpenAPI 3.1 with every route", () => {
  expect(document.openapi).toBe("3.1.0");
  expect(operations).toHaveLength(13);
});

test.each(operations.filter(({ operation }) => operation.requestBody))(
  "whatever is posted to $path is answered as described, and never with a failure of the server",
  async ({ path, operation }) => {
    const schema = operation.requestBody?.content["application/json"]?.schema ?? {};
    const seen = new Set<number>();
    await fc.assert(
      fc.asyncProperty(bodies(schema), async (body) => {
        const response = await fetch(server.url + path, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(body),
        });
        seen.add(response.status);
        const type = response.headers.get("content-type")?.split(";")[0] ?? "";
        const text = await response.text();
        expect(response.status).toBeLessThan(500);
        checkAnswer(operation, response.status, type, text);
      }),
      { numRuns: 120, seed: 1 },
    );
    // Both happened, so that neither the schema nor the check is empty.
    expect([...seen]).toEqual(expect.arrayContaining([200, 400]));
    expect(server.engine.counts.admitted).toBe(0);
  },
);

test.each(operations.filter(({ method }) => method === "get"))(
  "$path answers as described",
  async ({ path, operation }) => {
    for (const name of ["tiny", "other", "%00", "a/b"]) {
      const response = await fetch(server.url + path.replace("{model}", name));
      const type = response.headers.get("content-type")?.split(";")[0] ?? "";
      checkAnswer(operation, response.status, type, await response.text());
    }
  },
);

test("bounds are described", () => {
  const schema = document.paths["/v1/completions"]?.post?.requestBody?.content["application/json"]?.schema;
  expect(JSON.stringify(schema?.properties?.n)).toContain(`"maximum":${limits.choices}`);
  expect(JSON.stringify(schema?.properties?.stop)).toContain(`"maxItems":${limits.stops}`);
});
