import { expect, it } from "vitest";
import { PythonRandom } from "./python-random.ts";

// python3 -c "import random; random.seed(42); print([random.randint(5, 240) for _ in range(8)], random.choice('abcde'))"
it("draws what Python draws", () => {
  const random = new PythonRandom(42);
  const numbers = Array.from({ length: 8 }, () => random.integer(5, 240));
  expect(numbers).toEqual([168, 33, 11, 194, 75, 67, 62, 40]);
  expect(random.choice(["a", "b", "c", "d", "e"])).toBe("a");
});

// python3 -c "import random; r = random.Random(2**32 - 1); v = [r.randint(0, 2**31 - 1) for _ in range(1500)]; print(v[0], v[1499])"
it("goes on past its first 624 words, for a seed of 32 bits", () => {
  const random = new PythonRandom(2 ** 32 - 1);
  const numbers = Array.from({ length: 1500 }, () => random.integer(0, 2 ** 31 - 1));
  expect([numbers[0], numbers[1499]]).toEqual([872737089, 691963241]);
});
