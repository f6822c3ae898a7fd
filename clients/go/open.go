// Opens what is sealed in an AccessRequest: open KEYFILE < request.json, where KEYFILE holds the private key in base64.
package main

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"log"
	"os"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	var request struct {
		Metadata struct{ UID string }
		Spec     struct{ Subject struct{ PodUID string } }
		Status   struct {
			Grant    struct{ UID string }
			Delivery map[string]struct {
				Ciphertext []byte
				Sequence   uint64
			}
		}
	}
	must(0, json.NewDecoder(os.Stdin).Decode(&request))
	raw := must(base64.StdEncoding.DecodeString(string(must(os.ReadFile(os.Args[1])))))
	key := must(hpke.NewDHKEMPrivateKey(must(ecdh.X25519().NewPrivateKey(raw))))
	sealed := request.Status.Delivery["sealed"]
	info := "valetkey/v1" + request.Metadata.UID + request.Spec.Subject.PodUID + request.Status.Grant.UID
	bound := binary.BigEndian.AppendUint64([]byte(info), sealed.Sequence)
	os.Stdout.Write(must(hpke.Open(key, hpke.HKDFSHA256(), hpke.AES128GCM(), bound, sealed.Ciphertext)))
}
