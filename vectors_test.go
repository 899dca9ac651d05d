package perigee

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
)

// The vectors below are frozen. They pin what is hashed, signed and stored: a
// change that breaks one makes old receipts unreadable and nodes of different
// versions strangers, and so needs a new version of the record and its domain.

func TestVectorsOfNames(t *testing.T) {
	require.Equal(t, PeerID("12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"), testPeer(1))
	require.Equal(t, AccountID(vectorAccount), testAccount(1))
	require.Equal(t, "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq", SumCID(CodecRaw, []byte("hello")).String())
	require.Equal(t, "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua", SumCID(CodecDagCBOR, []byte{0xa0}).String(), "the empty map, as in the DAG-CBOR fixtures")
}

func TestVectorOfPart(t *testing.T) {
	b, err := Encode(samplePart())
	require.NoError(t, err)
	require.Equal(t, vectorPart, hex.EncodeToString(b))
	key, err := samplePart().Key()
	require.NoError(t, err)
	require.Equal(t, vectorKey, key.String())
}

// TestVectorsOfRecords pins the CIDs of whole records, and so their signatures:
// Ed25519 signs the same bytes in one way only.
func TestVectorsOfRecords(t *testing.T) {
	got := map[string]string{}
	for name, rec := range sampleRecords(t) {
		c, _, err := LinkTo(rec)
		require.NoError(t, err)
		got[name] = c.String()
	}
	require.Equal(t, vectorRecords, got)
	require.Equal(t, vectorSignature, hex.EncodeToString(sampleReceipt(t).Signature))
}

const vectorAccount = "z6Mkon3Necd6NkkyfoGoHxid2znGc59LU3K7mubaRcFbLfLX"
const vectorPart = "" +
	"a863656e76a3614160644c414e4761436b6c6f6e6765722d6e616d6562c3bc646172677383662d6c6576656c654552524f52632f696e66656e67696e65781977" +
	"61736d74696d652d34342e302e302f706572696765652d3166696e7075747382a663636964d82a58250001551220ca978112ca1bbdcafac231b39a23dc4da786" +
	"eff8147c4e72b9807785afee48bb6473697a651b000001000000000065616c69676e646c696e65656d6f756e74692f696e2f612e637376666c656e6774681a00" +
	"100000666f66667365741a00100000a663636964d82a582500017012203ff6c05723bb069d19953340320fa9512f0be584742703e60226ded28bb43861647369" +
	"7a65184d65616c69676e60656d6f756e74642f726566666c656e67746800666f666673657400666c696d697473a4646469736b1a40000000646675656c1b0000" +
	"000ba43b74006566696c6573192710666d656d6f72791a20000000666d6f64756c65d82a58250001551220120970d812836f19888625587a4606a5ad23cef31c" +
	"8684e601771552548fc6b9676f75747075747381642f6f757467776f726b646972632f696e"
const vectorKey = "bafyreigbwbhkg52oe6vw7347edhzj5dhfzedoklzvjdwfovs5rtjblhy7e"
const vectorSignature = "372d29bdef9514f6b8b2c7005bc81464b8d0992555468c7961ab54934b45b7da9e643aed5bfeb9f29a9795ae4b2c390e6bbabeed892dcccb8483232637340408"

var vectorRecords = map[string]string{
	"beat":           "bafyreiggetdxdwmacgdm3v32hqd2rugvzp26llenvr5hvsbommwwsi6b4q",
	"bid":            "bafyreia5ptkcq36lajpuw7vfqjulqd6ew3mjlirictc6ckj3ootyi7towe",
	"bid request":    "bafyreignxsguikuwqp7vh6jmdrbewe2g2de2s5haayjycsd3ghlfpvc5d4",
	"cancel answer":  "bafyreiagl5mnb2bozqcy6bzkqrmqgdtnotwvt23kf73fyleksvxhcyq2wy",
	"cancel request": "bafyreifni5w23dvgkfhw2ziaebbgbnkpjl44q5lppcyv7fb27eheg2bgzm",
	"dataset":        "bafyreih7jonxppsz3jv7vqae3do4ygeryptkq4klij5o7cbioramjkbyui",
	"dataset head":   "bafyreianxovrpz2xocwyhcqtrjyiwflrfgqpmvu7bdbjsfekdkmpkf67aq",
	"dataset join":   "bafyreibgdyydewfoldtpjianmfpqizek66hxfjpqe2hjj5ndd2yf3cl7oq",
	"event":          "bafyreiervx5ty6hcjjlco6zyrugjmmd7dn3dkgewth3hysw36jqe3gcmqy",
	"lease":          "bafyreia6lni7tcdpgcy7cvs3nxlrue3grpmlzl422eu5syqwqviqjwa5mq",
	"lease answer":   "bafyreiavnmfwnfdrxqdvmopmfjvvyuj6c6zeauaxtxdoteqifjvs7gzj7y",
	"offer":          "bafyreidbdlp7f7rugnq3zeigcbp3457ovyr7dejb2z2cek54djvvt2ppke",
	"part":           "bafyreigbwbhkg52oe6vw7347edhzj5dhfzedoklzvjdwfovs5rtjblhy7e",
	"receipt":        "bafyreic3jpo6gh36djgfojmmhjjwaxyx276hkxec2gw5klj5r4tdqednti",
	"refused bid":    "bafyreibk6c7lbzdgrn6yzhdktxawuqciasd4uj4sat5s4vc7dtk27grari",
	"refused lease":  "bafyreig6k7uameqpvyf6u7w4nrsstfu2uqrnzcjheku5m3ejjiol3ctu7i",
	"watch request":  "bafyreif6fz5sibig55ohp2e4qqjsbesxr3qy3g7jyi4f2jmmch4wbqyrxe",
}
