// The official Kubernetes provider. Its own main package embeds two files that its repository generates and
// does not keep, so that it can't be built from its module; this one reads them from a directory.
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"
)

const version = "4.25.0"

func main() {
	provider.Serve("kubernetes", version, read("schema.json"), read("terraform-mapping.json"))
}

func read(name string) []byte {
	content, err := os.ReadFile(filepath.Join(os.Getenv("KUBERNETES_PROVIDER_FILES"), name))
	if err != nil {
		log.Fatal(err)
	}
	return content
}
