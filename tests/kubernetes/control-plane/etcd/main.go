// The etcd server, of the version that go.mod pins: `go install` refuses the original, whose go.mod has replacements.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
