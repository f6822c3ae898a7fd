// Opens what is sealed in an AccessRequest: node open.mjs KEYFILE < request.json, where KEYFILE holds the private key in base64.
import { createDecipheriv, createHmac, createPrivateKey, createPublicKey, diffieHellman } from "node:crypto";
import { readFileSync } from "node:fs";

const request = JSON.parse(readFileSync(0, "utf8"));
const { ciphertext, sequence } = request.status.delivery.sealed;
const number = Buffer.alloc(8);
number.writeBigUInt64BE(BigInt(sequence));
const uids = [request.metadata.uid, request.spec.subject.podUID, request.status.grant.uid];
const info = Buffer.concat([Buffer.from("valetkey/v1" + uids.join("")), number]);

// RFC 9180: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM.
const bytes = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(part)));
const hmac = (key, data) => createHmac("sha256", key).update(data).digest();
const kem = bytes("KEM", [0, 32]), hpke = bytes("HPKE", [0, 32, 0, 1, 0, 1]);
const extract = (suite, salt, label, key) => hmac(salt, bytes("HPKE-v1", suite, label, key));
const expand = (suite, key, label, context, size) =>
  hmac(key, bytes([0, size], "HPKE-v1", suite, label, context, [1])).subarray(0, size);

const raw = Buffer.from(readFileSync(process.argv[2], "utf8"), "base64");
const own = createPrivateKey({ key: bytes(Buffer.from("302e020100300506032b656e04220420", "hex"), raw), format: "der", type: "pkcs8" });
const spki = Buffer.from("302a300506032b656e032100", "hex");
const ownPublic = createPublicKey(own).export({ format: "der", type: "spki" }).subarray(-32);
const sealed = Buffer.from(ciphertext, "base64");
const theirs = createPublicKey({ key: bytes(spki, sealed.subarray(0, 32)), format: "der", type: "spki" });
const dh = diffieHellman({ privateKey: own, publicKey: theirs });
const shared = expand(kem, extract(kem, "", "eae_prk", dh), "shared_secret", bytes(sealed.subarray(0, 32), ownPublic), 32);
const context = bytes([0], extract(hpke, "", "psk_id_hash", ""), extract(hpke, "", "info_hash", info));
const secret = extract(hpke, shared, "secret", "");
const opener = createDecipheriv("aes-128-gcm", expand(hpke, secret, "key", context, 16), expand(hpke, secret, "base_nonce", context, 12));
opener.setAuthTag(sealed.subarray(-16));
process.stdout.write(Buffer.concat([opener.update(sealed.subarray(32, -16)), opener.final()]));
