/** UUIDs of version 7: they sort in the order in which this page made them. */

let lastMs = 0;
let count = 0;

/**
 * @returns {string}
 */
export function uuid7() {
  const nowMs = Date.now();
  // Within one millisecond, and after a clock was set back, a counter keeps the order.
  if (nowMs > lastMs) [lastMs, count] = [nowMs, Math.floor(Math.random() * 1024)];
  else if (++count > 4095) [lastMs, count] = [lastMs + 1, 0];
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let index = 0; index < 6; index++) bytes[index] = Math.floor(lastMs / 2 ** (8 * (5 - index))) % 256;
  bytes[6] = 0x70 | (count >> 8);
  bytes[7] = count & 255;
  bytes[8] = 0x80 | (bytes[8] & 63);
  const digits = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return digits.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}
