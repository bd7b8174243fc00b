// Short marks of content, to tell whether something kept on disk belongs to what is being measured.

/** Sixteen hexadecimal digits of SHA-256 over byte arrays, one after another. */
export async function fingerprint(parts: readonly Uint8Array[]): Promise<string> {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", joined));
  return [...hash.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Sixteen hexadecimal digits that differ where a name or a value differs. */
export async function parameterFingerprint(parameters: Readonly<Record<string, Float32Array>>): Promise<string> {
  const lines: string[] = [];
  for (const [name, values] of Object.entries(parameters))
    lines.push(`${name} ${await fingerprint([bytesOf(values)])}\n`);
  return await fingerprint([new TextEncoder().encode(lines.join(""))]);
}

export function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
