// The sprint's libs/crypto/envelope.ts and deterministic.ts with their types taken off, run by Node's
// own crypto. Reads {"encrypt": [...], "decrypt": [...], "token": [...]} as JSON from standard input;
// keys and values are hexadecimal.
import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';

export function encryptField(tenantKek, plaintext, iv = randomBytes(12)) {
  const cipher = createCipheriv('aes-256-gcm', tenantKek, iv);
  const ct = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  const tag = cipher.getAuthTag();
  return Buffer.concat([Buffer.from([1]), iv, tag, ct]).toString('base64');
}

export function decryptField(tenantKek, blob) {
  const b = Buffer.from(blob, 'base64');
  const iv = b.subarray(1, 13);
  const tag = b.subarray(13, 29);
  const ct = b.subarray(29);
  const d = createDecipheriv('aes-256-gcm', tenantKek, iv);
  d.setAuthTag(tag);
  return Buffer.concat([d.update(ct), d.final()]);
}

export function detToken(tenantKek, value) {
  return createHmac('sha256', tenantKek).update(value).digest('base64url');
}

const hex = (text) => Buffer.from(text, 'hex');
let input = '';
for await (const chunk of process.stdin) input += chunk;
const { encrypt = [], decrypt = [], token = [] } = JSON.parse(input);
console.log(JSON.stringify({
  encrypt: encrypt.map(({ key, value, iv }) => encryptField(hex(key), hex(value), iv ? hex(iv) : undefined)),
  decrypt: decrypt.map(({ key, blob }) => decryptField(hex(key), blob).toString('hex')),
  token: token.map(({ key, value }) => detToken(hex(key), hex(value).toString('utf8'))),
}));
