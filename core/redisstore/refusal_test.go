package redisstore

import (
	"errors"
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

// repliedError is an error as go-redis has it from a server.
type repliedError string

func (r repliedError) Error() string { return string(r) }
func (repliedError) RedisError()     {}

var _ redis.Error = repliedError("")

func TestTheKindOfARefusalIsFoundInWhatServersReply(t *testing.T) {
	for text, want := range map[string]tier.RefusalError{
		"NOAUTH Authentication required.":                                                                                          {Kind: "NOAUTH", Permanent: true},
		"WRONGPASS invalid username-password pair or user is disabled.":                                                            {Kind: "WRONGPASS", Permanent: true},
		"NOPERM this user has no permissions to run the 'get' command":                                                             {Kind: "NOPERM", Permanent: true},
		"NOPERM No permissions to access a key":                                                                                    {Kind: "NOPERM", Permanent: true},
		"MISCONF Redis is configured to save RDB snapshots, but it cannot persist":                                                 {Kind: "MISCONF"},
		"READONLY You can't write against a read only replica.":                                                                    {Kind: "READONLY"},
		"OOM command not allowed when used memory > 'maxmemory'.":                                                                  {Kind: "OOM"},
		"LOADING Redis is loading the dataset in memory":                                                                           {Kind: "LOADING"},
		"CLUSTERDOWN Hash slot not served":                                                                                         {Kind: "CLUSTERDOWN"},
		"MASTERDOWN Link with MASTER is down":                                                                                      {Kind: "MASTERDOWN"},
		"NOREPLICAS Not enough good replicas to write.":                                                                            {Kind: "NOREPLICAS"},
		"BUSY Redis is busy running a script.":                                                                                     {Kind: "BUSY"},
		"WRONGTYPE Operation against a key holding the wrong kind of value":                                                        {Kind: "WRONGTYPE"},
		"ERR unknown command 'evalsha', with args beginning with: ":                                                                {Kind: unknownCommand, Permanent: true},
		"ERR unknown command `SPUBLISH`, with args beginning with: ":                                                               {Kind: unknownCommand, Permanent: true},
		"ERR Unknown Redis command called from script script: 39c5, on @user_script:1.":                                            {Kind: notInScripts, Permanent: true},
		"ERR Error running script (call to f_39c5): @user_script:1: @user_script: 1: Unknown Redis command called from Lua script": {Kind: notInScripts, Permanent: true},
		"ERR Error running script (call to f_39c5): @user_script:1: @user_script: 1: -OOM command not allowed when used memory":    {Kind: "OOM"},
		"ERR Error running script (call to f_39c5): @user_script:9: NOPERM this user has no permissions":                           {Kind: "NOPERM", Permanent: true},
		"ERR The user executing the script can't run this command or subcommand script: 39c5":                                      {Kind: "NOPERM", Permanent: true},
		"ERR This Redis command is not allowed from script":                                                                        {Kind: notInScripts, Permanent: true},
		"ERR bad lua script for redis cluster, all the keys that the script uses should be passed using the KEYS array":            {Kind: scriptRefused, Permanent: true},
		"ERR user_script:3: Script attempted to access nonexistent global variable 'unpack'":                                       {Kind: scriptRefused, Permanent: true},
		"ERR This instance has cluster support disabled":                                                                           {Kind: "no cluster", Permanent: true},
		"section (replication) is not supported":                                                                                   {Kind: unknownCommand, Permanent: true},
		"ERR something else":                                                                                                       {Kind: otherError},
	} {
		err := failed("do", fmt.Errorf("at first: %w", repliedError(text)))
		require.Equal(t, want.Kind, tier.KindOf(err), text)
		require.Equal(t, want.Permanent, tier.IsPermanent(err), text)
		require.ErrorContains(t, err, text)
	}
}

func TestWhatIsPartOfTheProtocolIsNoRefusal(t *testing.T) {
	for _, text := range []string{
		"NOSCRIPT No matching script.", "MOVED 1 127.0.0.1:1", "ASK 1 127.0.0.1:1", "TRYAGAIN Multiple keys request during rehashing of slot",
		"CROSSSLOT Keys in request don't hash to the same slot",
	} {
		require.Empty(t, tier.KindOf(judge(repliedError(text))), text)
	}
	require.NoError(t, judge(nil))
	require.Empty(t, tier.KindOf(judge(redis.Nil)))
	require.Empty(t, tier.KindOf(judge(errors.New("i/o timeout: NOAUTH"))), "no server has replied it")
}
