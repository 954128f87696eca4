// An OCI 1.1 registry with the referrers API on one loopback address, blobs on disk.
package main

import (
	"flag"
	"io"
	"log"
	"net/http"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	directory := flag.String("directory", "", "where blobs are kept")
	flag.Parse()
	handler := registry.New(registry.WithReferrersSupport(true), registry.WithBlobHandler(registry.NewDiskBlobHandler(*directory)), registry.Logger(log.New(io.Discard, "", 0)))
	log.Fatal(http.ListenAndServe(*address, handler))
}
